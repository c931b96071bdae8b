//! What SIGHUP can change, and what has no effect.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::Config;
use crate::path;

/// Keys that a running daemon takes over on SIGHUP.
pub const RELOADABLE: &[&str] = &["logging.format", "logging.level"];

/// Keys that are checked but change nothing in this build: a key, or the section it is in.
const WITHOUT_EFFECT: &[&str] = &[
    "lxc.architecture",
    "lxc.distribution",
    "lxc.release",
    "lxc.template",
    "metrics",
    "streaming",
    "tracing",
];

/// Keys that differ between the two and that only a restart can change, by path.
pub fn changes_needing_restart(old: &Config, new: &Config) -> Vec<String> {
    differences(old, new)
        .into_iter()
        .filter(|path| !RELOADABLE.contains(&path.as_str()))
        .collect()
}

/// Keys that are set to something else than their default and that change nothing in this build, by path. The
/// daemon warns of each.
pub fn keys_without_effect(config: &Config) -> Vec<String> {
    differences(&Config::default(), config)
        .into_iter()
        .filter(|path| is_without_effect(path))
        .collect()
}

/// Whether the key at `path` changes nothing in this build.
pub(crate) fn is_without_effect(path: &str) -> bool {
    WITHOUT_EFFECT.iter().any(|of| is_in(path, of))
}

fn is_in(path: &str, section: &str) -> bool {
    path.strip_prefix(section)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Paths of all keys that are not the same in both.
fn differences(a: &Config, b: &Config) -> Vec<String> {
    let (a, b) = (leaves(a), leaves(b));
    let changed = a.iter().filter(|(path, value)| b.get(*path) != Some(value));
    let mut paths: Vec<String> = changed.map(|(path, _)| path.clone()).collect();
    paths.extend(b.into_keys().filter(|path| !a.contains_key(path)));
    paths.sort();
    paths
}

fn leaves(config: &Config) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    // A `Config` has only string keys and finite numbers, so that this cannot fail.
    let value = serde_json::to_value(config).unwrap_or_default();
    collect("", value, &mut found);
    found
}

/// An empty object is not a leaf: a map that gets its first entry is told by the entry.
fn collect(at: &str, value: Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                collect(&path::key(at, &key), value, into);
            }
        }
        leaf => {
            into.insert(at.to_owned(), leaf);
        }
    }
}
