//! The schema and the default file.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::config::Config;

/// The JSON schema (draft 2020-12) of the file.
pub fn schema() -> String {
    lines(&schema_value())
}

/// A file with every key that has a default, at its default.
pub fn default_file() -> String {
    let config = Config::default();
    lines(&Config {
        runtime: Some(config.default_backend().family()),
        default_backend: Some(config.default_backend()),
        ..config
    })
}

/// The schema, with every type in its place rather than referred to.
pub(crate) fn schema_value() -> Value {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value()
}

fn lines(value: &impl serde::Serialize) -> String {
    // Strings, numbers and maps with string keys: there is nothing that could not be written.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
