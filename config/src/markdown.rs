//! The reference for people.

use std::fmt::Write;

use serde_json::Value;

use crate::check::bounds;
use crate::generate::schema_value;
use crate::reload::{RELOADABLE, is_without_effect};

const HEAD: &str = "\
# Configuration

<!-- Generated from the types in config/src. Change it there, then run
     NEXCAGE_UPDATE=1 cargo test -p nexcage-config -->

nexcage reads `/etc/nexcage/config.json`, or the file given with `--config`. It is strict JSON: a key that is not described here, a
key given twice, a wrong type or a value that cannot work is refused, with the path of the key and what is allowed. Every
key may be left out. Without a file at the usual place everything has its default.

`nexcage config check` checks a file, `nexcage config default` prints one with all defaults, `nexcage config schema` the
JSON schema, for editors.

On SIGHUP the daemon reads the file again and takes over the keys marked *reloadable*; for all others
it says that a restart is needed. A file that is refused changes nothing.

Keys marked *no effect in this build* are checked like all others but change nothing; the daemon warns of each that is set.
";

/// `docs/config.md`.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    let schema = schema_value();
    object(&schema, "", &mut text);
    text
}

/// The simple keys of an object, then its sections.
fn object(schema: &Value, at: &str, text: &mut String) {
    let heading = if at.is_empty() {
        "Top level".to_owned()
    } else {
        format!("`{at}`")
    };
    let _ = write!(text, "\n## {heading}\n");
    paragraph(schema, text);
    let properties: Vec<(String, &Value)> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, schema)| (join(at, name), schema))
        .collect();
    for (path, schema) in &properties {
        if section(schema).is_none() {
            key(path, schema, text);
        }
    }
    for (path, schema) in &properties {
        match section(schema) {
            Some(Section::Object(inner)) => object(inner, path, text),
            Some(Section::Map(element)) => {
                let _ = write!(text, "\n## `{path}`\n");
                paragraph(schema, text);
                object(element, &join(path, "<name>"), text);
            }
            None => {}
        }
    }
}

enum Section<'a> {
    Object(&'a Value),
    /// Of objects, by names that the user chooses.
    Map(&'a Value),
}

fn section(schema: &Value) -> Option<Section<'_>> {
    let choices = schema.get("anyOf").and_then(Value::as_array);
    let inner = choices
        .and_then(|choices| choices.iter().find(|s| s.get("properties").is_some()))
        .unwrap_or(schema);
    if inner.get("properties").is_some() {
        return Some(Section::Object(inner));
    }
    let element = inner.get("additionalProperties")?;
    element.get("properties")?;
    Some(Section::Map(element))
}

/// One key that is not a section.
fn key(path: &str, schema: &Value, text: &mut String) {
    let _ = write!(text, "\n### `{path}`\n\n{}", kind(schema));
    if let Some(default) = schema.get("default").filter(|d| !d.is_null()) {
        let _ = write!(text, "; default `{default}`");
    }
    if RELOADABLE.contains(&path) {
        text.push_str("; *reloadable*");
    }
    if is_without_effect(path) {
        text.push_str("; *no effect in this build*");
    }
    text.push('\n');
    paragraph(schema, text);
    for choice in choices(schema) {
        if let (Some(value), Some(meaning)) = (choice.get("const"), choice.get("description")) {
            let _ = write!(
                text,
                "\n* `{value}`: {}",
                meaning.as_str().unwrap_or_default()
            );
        }
    }
    if !choices(schema).is_empty() {
        text.push('\n');
    }
}

fn paragraph(schema: &Value, text: &mut String) {
    if let Some(description) = schema.get("description").and_then(Value::as_str) {
        let _ = write!(text, "\n{description}\n");
    }
}

/// What a value looks like.
fn kind(schema: &Value) -> String {
    let values: Vec<String> = choices(schema)
        .iter()
        .filter_map(|choice| Some(format!("`{}`", choice.get("const")?)))
        .collect();
    if !values.is_empty() {
        return format!("one of {}", values.join(", "));
    }
    let types = schema.get("type");
    let first = types.and_then(|t| t.as_str().or_else(|| t.get(0)?.as_str()));
    match first {
        Some("boolean") => "`true` or `false`".into(),
        Some("integer") => range(schema),
        Some("array") => match schema.get("items").map(kind) {
            Some(items) => format!("list of: {items}"),
            None => "list".into(),
        },
        Some("object") => match schema.get("additionalProperties").map(kind) {
            Some(values) => format!("object; each value: {values}"),
            None => "object".into(),
        },
        _ => optional(schema).map_or_else(|| named(schema), kind),
    }
}

fn range(schema: &Value) -> String {
    match bounds(schema) {
        (min, Some(max)) => format!("whole number from {min} to {max}"),
        (min, None) => format!("whole number of at least {min}"),
    }
}

fn named(schema: &Value) -> String {
    match schema.get("format").and_then(Value::as_str) {
        Some("uri") => "`http` or `https` URL".into(),
        Some(format) => format.into(),
        None => "string".into(),
    }
}

/// What an optional value is when it is there.
fn optional(schema: &Value) -> Option<&Value> {
    let choices = schema.get("anyOf")?.as_array()?;
    choices
        .iter()
        .find(|s| s.get("type").and_then(Value::as_str) != Some("null"))
}

/// The values of a key that has a fixed set of them, each with its meaning.
fn choices(schema: &Value) -> &[Value] {
    let schema = optional(schema).unwrap_or(schema);
    let list = schema.get("oneOf").and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

fn join(at: &str, name: &str) -> String {
    match at {
        "" => name.to_owned(),
        at => format!("{at}.{name}"),
    }
}
