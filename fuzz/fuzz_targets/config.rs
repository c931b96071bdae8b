//! The configuration file: what is taken must be taken again as it is written out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nexcage_config::Config;

fuzz_target!(|text: &str| {
    match Config::parse(text, "fuzz") {
        Ok(config) => {
            let written = serde_json::to_string(&config).expect("a configuration can be written");
            let again = Config::parse(&written, "fuzz").expect("what was written can be read");
            assert_eq!(again, config);
        }
        // Whoever has to mend the file must be told what is wrong.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
