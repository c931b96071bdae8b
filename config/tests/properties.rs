//! Nothing makes the parser panic, and every mutilation of a good file is told by its path.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use nexcage_config::{Config, ConfigError, default_file};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        "/[a-z/.]{0,8}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        "logging|images|storage|network|lxc|proxmox|runtime_handlers|security",
        "registries|mirrors|level|root|idmap|base|vmids|backend|capabilities|headers",
        ".{0,6}",
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A file in which every key stands, the optional ones and one of each map too.
fn full() -> Value {
    let mut value: Value = serde_json::from_str(&default_file()).unwrap();
    let more = json!({
        "logging": {"file": "/var/log/nexcage.log"},
        "lxc": {"template": "download", "distribution": "debian", "release": "12", "architecture": "amd64"},
        "sandbox": {"log_size_max_bytes": 65536},
        "images": {
            "registries": {"docker.io": {"mirrors": ["http://a:1"], "plain_http": false, "ca_file": "/ca",
                "skip_verify": false, "headers": {"X-A": "b"}}},
            "credentials_file": "/c", "pinned": ["a*"], "spool_dir": "/s",
        },
        "security": {"capabilities": ["CAP_KILL"]},
        "network": {"cache_dir": "/n"},
        "proxmox": {"node": "n", "pve_dir": "/p", "vmids": {"first": 100, "last": 200}, "start": "direct", "api_url": "https://a",
            "ca_file": "/ca", "token_file": "/t"},
        "runtime_handlers": {"a": {"backend": "lxc", "annotations": ["b"], "privileged_without_host_devices": true}},
    });
    merge(&mut value, more);
    value
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// JSON pointers of all values below the top, with the paths that problems use.
fn places(value: &Value, pointer: &str, path: &str, found: &mut Vec<(String, String)>) {
    let mut visit = |pointer: String, path: String, value: &Value| {
        found.push((pointer.clone(), path.clone()));
        places(value, &pointer, &path, found);
    };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let plain = key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
                let inside = match (plain, path) {
                    (true, "") => key.clone(),
                    (true, path) => format!("{path}.{key}"),
                    (false, path) => format!("{path}[{key:?}]"),
                };
                visit(format!("{pointer}/{key}"), inside, value);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                visit(format!("{pointer}/{i}"), format!("{path}[{i}]"), value);
            }
        }
        _ => {}
    }
}

/// A value of a type that the key at hand cannot have.
fn other_type(value: &Value) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) => json!(true),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => json!([[]]),
    }
}

#[test]
fn every_key_of_the_wrong_type_is_told_by_its_path() {
    let good = full();
    Config::parse(&good.to_string(), "full").unwrap();
    let mut all = Vec::new();
    places(&good, "", "", &mut all);
    assert!(all.len() > 70, "only {} keys", all.len());
    for (pointer, path) in all {
        let mut bad = good.clone();
        let place = bad.pointer_mut(&pointer).unwrap();
        *place = other_type(place);
        told(&bad, &path);
    }
}

#[test]
fn every_unknown_key_is_told_by_its_path() {
    let good = full();
    let mut all = vec![(String::new(), String::new())];
    places(&good, "", "", &mut all);
    for (pointer, path) in all {
        let mut bad = good.clone();
        let open = ["images.registries", "runtime_handlers"].contains(&path.as_str())
            || path.ends_with("headers");
        match bad.pointer_mut(&pointer).unwrap() {
            Value::Object(map) if !open => {
                map.insert("surprise".into(), json!(1));
                let dot = if path.is_empty() { "" } else { "." };
                told(&bad, &format!("{path}{dot}surprise"));
            }
            _ => {}
        }
    }
}

#[track_caller]
fn told(bad: &Value, path: &str) {
    match Config::parse(&bad.to_string(), "bad") {
        Err(ConfigError::Invalid { problems, .. }) => {
            assert!(
                problems.iter().any(|p| p.path == path),
                "{path} is not in {problems:?}"
            );
        }
        other => panic!("{path}: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = Config::parse(&text, "any");
    }

    #[test]
    fn no_json_panics(value in any_json()) {
        let _ = Config::parse(&value.to_string(), "any");
    }

    #[test]
    fn no_json_in_place_of_any_key_panics(at in any::<prop::sample::Index>(), value in any_json()) {
        let mut config = full();
        let mut all = Vec::new();
        places(&config, "", "", &mut all);
        let (pointer, _) = at.get(&all);
        *config.pointer_mut(pointer).unwrap() = value;
        if let Ok(config) = Config::parse(&config.to_string(), "any") {
            let again = serde_json::to_string(&config).unwrap();
            prop_assert_eq!(Config::parse(&again, "again").unwrap(), config);
        }
    }

    #[test]
    fn a_file_cut_short_is_an_error(cut in any::<prop::sample::Index>()) {
        let text = default_file();
        let text = text.trim_end();
        let cut = cut.index(text.len());
        let parsed = Config::parse(&text[..cut], "cut");
        let is_syntax = matches!(parsed, Err(ConfigError::Syntax { .. }));
        prop_assert!(is_syntax);
    }

    #[test]
    fn problems_come_in_order_and_once(map in prop::collection::hash_map("[a-z]{1,6}", any::<bool>(), 1..20)) {
        let value: Map<String, Value> = map.into_iter().map(|(k, v)| (k, v.into())).collect();
        if let Err(ConfigError::Invalid { problems, .. }) = Config::parse(&Value::from(value).to_string(), "any") {
            prop_assert!(problems.windows(2).all(|two| two[0] < two[1]));
        }
    }
}
