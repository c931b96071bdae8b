//! The configuration file.

use camino::Utf8Path;
use nexcage_config::{Config, ConfigError, DEFAULT_PATH, keys_without_effect};

use super::finding::Finding;
use crate::error::Chain;

const CHECK: &str = "configuration";

/// What the file says, and what is wrong with it. The other checks go on with the defaults if it cannot be used. Blocking.
pub(super) fn load(path: Option<&Utf8Path>) -> (Config, Finding) {
    let file = path.unwrap_or(Utf8Path::new(DEFAULT_PATH));
    let loaded = match Config::load(file) {
        // As the daemon has it.
        Err(ConfigError::NotFound { .. }) if path.is_none() => {
            let reason = format!("{file} is not there: everything has its default");
            return (Config::default(), Finding::ok(CHECK, reason));
        }
        loaded => loaded,
    };
    let finding = judge(file, &loaded);
    (loaded.unwrap_or_default(), finding)
}

fn judge(file: &Utf8Path, loaded: &Result<Config, ConfigError>) -> Finding {
    match loaded {
        Ok(config) => match keys_without_effect(config).as_slice() {
            [] => Finding::ok(CHECK, format!("{file} has no problems")),
            keys => Finding::warning(
                CHECK,
                format!("{} change nothing in this version", keys.join(", ")),
                format!("remove them from {file}"),
            ),
        },
        Err(ConfigError::Invalid { problems, .. }) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let reason = format!("{file} cannot be used: {}", problems.join("; "));
            Finding::failed(CHECK, reason, "mend it; what follows goes by the defaults")
        }
        Err(error) => Finding::failed(
            CHECK,
            Chain(error).to_string(),
            "mend it; what follows goes by the defaults",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    fn judged(text: &str) -> Finding {
        judge(Utf8Path::new("c.json"), &Config::parse(text, "c.json"))
    }

    #[test]
    fn problems_are_all_named() {
        assert_eq!(judged("{}").state, State::Ok);
        assert_eq!(
            judged(r#"{"metrics": {"enabled": true}}"#).state,
            State::Warning
        );
        let bad = judged(r#"{"a": 1, "lxc": {"idmap": {"base": 1}}}"#);
        assert_eq!(bad.state, State::Failed);
        assert!(
            bad.reason.contains("a: ") && bad.reason.contains("lxc.idmap.base"),
            "{bad:?}"
        );
        assert!(judged("{").reason.contains("line 1"));
    }

    #[test]
    fn a_file_that_was_named_has_to_be_there() {
        let (_, finding) = load(Some(Utf8Path::new("/no/such/file")));
        assert_eq!(finding.state, State::Failed);
    }
}
