//! The committed files are what the types say. `NEXCAGE_UPDATE=1` rewrites them.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

fn holds(file: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("NEXCAGE_UPDATE").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{file} is not what the types say; run NEXCAGE_UPDATE=1 cargo test -p nexcage-config"
    );
}

#[test]
fn the_schema() {
    holds("schema.json", &nexcage_config::schema());
}

#[test]
fn the_default_file() {
    holds("default.json", &nexcage_config::default_file());
}

#[test]
fn the_reference() {
    holds("../docs/config.md", &nexcage_config::markdown());
}
