//! The configuration file: what is taken must be taken again as it is written out.
use nexcage_config::Config;

/// Reads the input as the file.
pub(crate) fn config(text: &str) {
    match Config::parse(text, "fuzz") {
        Ok(config) => {
            let written = serde_json::to_string(&config).expect("a configuration can be written");
            let again = Config::parse(&written, "fuzz").expect("what was written can be read");
            assert_eq!(again, config);
        }
        // Whoever has to mend the file must be told what is wrong.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
