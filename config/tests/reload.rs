//! What a running daemon takes over, and what nobody does.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use nexcage_config::{Config, changes_needing_restart, keys_without_effect};
use serde_json::{Value, json};

fn parse(value: &Value) -> Config {
    Config::parse(&value.to_string(), "test").unwrap()
}

#[test]
fn only_logging_can_change_without_a_restart() {
    let old = Config::default();
    let new = parse(&json!({
        "logging": {"level": "debug", "format": "json", "file": "/x"},
        "images": {"registries": {"docker.io": {"plain_http": true}}},
        "network": {"deadline_seconds": 5},
    }));
    assert!(changes_needing_restart(&old, &old).is_empty());
    let changed = changes_needing_restart(&old, &new);
    assert!(
        !changed
            .iter()
            .any(|path| path == "logging.level" || path == "logging.format")
    );
    for path in [
        "logging.file",
        "network.deadline_seconds",
        r#"images.registries["docker.io"].plain_http"#,
    ] {
        assert!(
            changed.iter().any(|p| p == path),
            "{path} is not in {changed:?}"
        );
        assert!(
            changes_needing_restart(&new, &old)
                .iter()
                .any(|p| p == path)
        );
    }
}

#[test]
fn keys_that_change_nothing_are_told() {
    assert!(keys_without_effect(&Config::default()).is_empty());
    let config = parse(
        &json!({"lxc": {"release": "22.04", "name_prefix": "x-"}, "metrics": {"enabled": true}}),
    );
    assert_eq!(
        keys_without_effect(&config),
        ["lxc.release", "metrics.enabled"]
    );
}
