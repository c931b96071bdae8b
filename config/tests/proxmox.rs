//! Proxmox VE, and which backend a runtime handler has.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use nexcage_config::{
    BACKEND_ANNOTATIONS, Backend, Config, ConfigError, Family, PROXMOX_HANDLERS, Problem,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(value: &Value) -> Config {
    Config::parse(&value.to_string(), "test").unwrap()
}

fn problem(value: &Value) -> Problem {
    match Config::parse(&value.to_string(), "test") {
        Err(ConfigError::Invalid { problems, .. }) if problems.len() == 1 => problems[0].clone(),
        other => panic!("{value} gave {other:?}"),
    }
}

#[test]
fn proxmox_is_a_backend_of_the_family_lxc() {
    let config = parse(&json!({"runtime": "lxc", "default_backend": "proxmox"}));
    assert_eq!(config.default_backend(), Backend::Proxmox);
    assert_eq!(Backend::Proxmox.family(), Family::Lxc);
    assert_eq!(config.handler("").unwrap().backend, Backend::Proxmox);
    let host = problem(&json!({"runtime": "host", "default_backend": "proxmox"}));
    assert_eq!(host.path, "default_backend");
    let family = problem(&json!({"runtime": "proxmox"}));
    assert_eq!(family.path, "runtime");
    assert!(family.message.contains("`default_backend`"), "{family}");
}

#[test]
fn three_handlers_are_there_without_being_listed() {
    let config = Config::default();
    for name in PROXMOX_HANDLERS {
        assert_eq!(config.handler(name).unwrap().backend, Backend::Proxmox);
    }
    let names: Vec<_> = config.handlers().into_iter().map(|h| h.name).collect();
    assert_eq!(names, ["", "nexcage", "nexcage-lxc", "proxmox-lxc"]);
    assert_eq!(config.handler("proxmox"), None);
    assert!(!config.names_proxmox());
}

#[test]
fn a_listed_handler_overrides() {
    let config = parse(&json!({"runtime_handlers": {
        "nexcage": {"backend": "lxc"},
        "nexcage-lxc": {"rootfs": {"compression": "zstd"}},
        "plain": {},
    }, "storage": {"driver": "zfs"}}));
    assert_eq!(config.handler("nexcage").unwrap().backend, Backend::Lxc);
    assert_eq!(config.handler("plain").unwrap().backend, Backend::Lxc);
    let with_properties = config.handler("nexcage-lxc").unwrap();
    assert_eq!(with_properties.backend, Backend::Proxmox);
    assert!(with_properties.rootfs.compression.is_some());
    assert_eq!(config.handlers().len(), 5, "each is there once");
}

#[test]
fn what_says_that_pods_are_to_be_containers_of_proxmox() {
    for value in [
        json!({"proxmox": {}}),
        json!({"default_backend": "proxmox"}),
        json!({"runtime_handlers": {"a": {"backend": "proxmox"}}}),
    ] {
        assert!(parse(&value).names_proxmox(), "{value}");
    }
    let value = json!({"runtime_handlers": {"nexcage": {"backend": "lxc"}}});
    assert!(!parse(&value).names_proxmox());
}

#[test]
fn a_backend_is_chosen_by_annotations_unless_the_file_says_otherwise() {
    let usual = Config::default().handler("").unwrap();
    assert!(
        BACKEND_ANNOTATIONS
            .iter()
            .all(|name| usual.allows_annotation(name))
    );
    let closed = parse(&json!({"runtime_handlers": {"": {"annotations": []}}}));
    let closed = closed.handler("").unwrap();
    assert!(
        !BACKEND_ANNOTATIONS
            .iter()
            .any(|name| closed.allows_annotation(name))
    );
}

#[test]
fn the_section_is_checked() {
    for (value, path) in [
        (json!({"node": ""}), "proxmox.node"),
        (json!({"node": "-pve"}), "proxmox.node"),
        (json!({"node": "pve/1"}), "proxmox.node"),
        (json!({"pve_dir": "/"}), "proxmox.pve_dir"),
        (json!({"vmids": {"first": 99}}), "proxmox.vmids.first"),
        (
            json!({"vmids": {"last": 100_000_000}}),
            "proxmox.vmids.last",
        ),
        (
            json!({"vmids": {"first": 200, "last": 199}}),
            "proxmox.vmids",
        ),
        (json!({"start": "api"}), "proxmox.token_file"),
        (json!({"api_url": "pve:8006"}), "proxmox.api_url"),
        (json!({"api_url": "http://pve:8006"}), "proxmox.api_url"),
    ] {
        assert_eq!(problem(&json!({"proxmox": value})).path, path, "{value}");
    }
    let good = json!({"proxmox": {
        "node": "pve-1", "vmids": {"first": 100, "last": 100}, "start": "api", "token_file": "/t",
    }});
    assert_eq!(parse(&good).proxmox.unwrap().node.as_deref(), Some("pve-1"));
}

proptest! {
    #[test]
    fn a_handler_has_the_backend_that_is_nearest_to_it(
        name in prop_oneof![Just("nexcage"), Just("proxmox-lxc"), Just("other")],
        own in prop::option::of(prop_oneof![Just("lxc"), Just("proxmox"), Just("host")]),
        default in prop_oneof![Just("lxc"), Just("proxmox"), Just("host")],
    ) {
        let handler = own.map_or(json!({}), |own| json!({"backend": own}));
        let config = parse(&json!({"default_backend": default, "runtime_handlers": {name: handler}}));
        let usual = if name == "other" { default } else { "proxmox" };
        prop_assert_eq!(config.handler(name).unwrap().backend.name(), own.unwrap_or(usual));
    }
}
