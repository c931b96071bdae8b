//! What is accepted, what is refused, and how that is said.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use camino::Utf8Path;
use nexcage_config::{
    Backend, Config, ConfigError, LogLevel, Problem, SeccompProfile, default_file,
};
use serde_json::{Value, json};

fn parse(value: &Value) -> Result<Config, ConfigError> {
    Config::parse(&value.to_string(), "test")
}

fn problems(value: &Value) -> Vec<Problem> {
    match parse(value) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("{value} gave {other:?}"),
    }
}

/// One problem, at `path`, whose message has `words`.
#[track_caller]
fn refused(value: &Value, path: &str, words: &[&str]) {
    let all = problems(value);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].path, path, "{all:?}");
    for word in words {
        assert!(
            all[0].message.contains(word),
            "{word} is not in: {}",
            all[0]
        );
    }
}

#[test]
fn the_documented_files_load_as_they_are() {
    let one = Config::load(Utf8Path::new("tests/config-documented-1.json")).unwrap();
    assert_eq!(one.default_backend(), Backend::Lxc);
    assert!(one.oci_fallback);
    assert_eq!(one.lxc_path.as_str(), "/var/lib/lxc");
    assert_eq!(one.logging.level, LogLevel::Info);
    assert_eq!(one.logging.file.unwrap().as_str(), "/var/log/nexcage.log");
    assert_eq!(
        one.kubernetes.cri_socket.as_str(),
        "/run/nexcage/nexcage.sock"
    );
    assert_eq!(one.lxc.release.unwrap(), "22.04");
    assert_eq!(one.security.capabilities[1].as_str(), "CAP_SYS_ADMIN");

    let two = Config::load(Utf8Path::new("tests/config-documented-2.json")).unwrap();
    assert_eq!(two.security.apparmor_profile, "lxc-container-default-cgns");
    assert_eq!(two.security.seccomp_profile, SeccompProfile::Default);
    assert!(two.security.no_new_privileges);
    assert!(!two.security.read_only_rootfs);
}

#[test]
fn nothing_is_everything_at_its_default() {
    assert_eq!(parse(&json!({})).unwrap(), Config::default());
    let file = Config::parse(&default_file(), "default").unwrap();
    assert_eq!(file.default_backend(), Config::default().default_backend());
    let same = Config {
        runtime: None,
        default_backend: None,
        ..file
    };
    assert_eq!(same, Config::default());
}

#[test]
fn what_is_written_is_read_back() {
    let full = json!({
        "images": {"registries": {
            "docker.io": {"mirrors": ["http://127.0.0.1:5000/hub/"], "headers": {"X-Node": "a"}},
            "10.0.0.1:5000": {"plain_http": true},
            "[fd00::1]:5000": {"ca_file": "/etc/ssl/own.pem"},
            "*": {"skip_verify": true},
        }},
        "proxmox": {"vmids": {"first": 500, "last": 599}},
        "runtime_handlers": {"": {"annotations": ["a/*"]}, "fast": {"backend": "host"}},
    });
    let config = parse(&full).unwrap();
    let mirror = &config.images.registries["docker.io"].mirrors[0];
    assert_eq!(mirror.as_str(), "http://127.0.0.1:5000/hub");
    let again = Config::parse(&serde_json::to_string(&config).unwrap(), "again").unwrap();
    assert_eq!(config, again);
}

#[test]
fn unknown_keys_wrong_types_and_unknown_values_are_refused() {
    refused(
        &json!({"loging": {}}),
        "loging",
        &["unknown field", "`logging`"],
    );
    refused(
        &json!({"lxc": {"idmap": {"bas": 1}}}),
        "lxc.idmap.bas",
        &["`base`", "`size`"],
    );
    refused(
        &json!({"oci_fallback": "yes"}),
        "oci_fallback",
        &["\"yes\"", "boolean"],
    );
    refused(
        &json!({"logging": {"level": "loud"}}),
        "logging.level",
        &["loud", "`info`"],
    );
    refused(&json!({"logging": []}), "logging", &["must be an object"]);
    refused(&json!({"logging": null}), "logging", &["must be an object"]);
    refused(&json!([]), ".", &["must be an object, not a list"]);
    refused(
        &json!({"images": {"registries": {"a": []}}}),
        "images.registries.a",
        &["object"],
    );
    refused(
        &json!({"storage": {"root": "var"}}),
        "storage.root",
        &["absolute path", "\"var\""],
    );
    refused(
        &json!({"storage": {"root": "/a/../b"}}),
        "storage.root",
        &["`..`"],
    );
    refused(
        &json!({"security": {"capabilities": ["CAP_KILL", "net_admin"]}}),
        "security.capabilities[1]",
        &["CAP_NET_ADMIN", "net_admin"],
    );
    refused(
        &json!({"images": {"registries": {"docker.io": {"mirrors": ["ftp://x"]}}}}),
        r#"images.registries["docker.io"].mirrors[0]"#,
        &["http://", "ftp://x"],
    );
    refused(
        &json!({"metrics": {"address": "here"}}),
        "metrics.address",
        &["socket address"],
    );
}

#[test]
fn root_filesystems_are_what_the_handler_or_the_default_says() {
    let config = parse(&json!({
        "storage": {"driver": "zfs", "zfs": {"dataset": "tank/nexcage"}, "rootfs": {"quota": "10Gi", "compression": "zstd"}},
        "runtime_handlers": {"db": {"rootfs": {"recordsize": "8K", "quota": "100Gi"}, "annotations": []}},
    }))
    .unwrap();
    let by_default = config.handler("").unwrap();
    assert!(by_default.allows_annotation("nexcage.storage.quota"));
    assert_eq!(by_default.rootfs.quota.unwrap().bytes(), 10 << 30);
    let db = config.handler("db").unwrap();
    assert!(!db.allows_annotation("nexcage.storage.quota"));
    assert_eq!(db.rootfs.quota.unwrap().bytes(), 100 << 30);
    let names: Vec<_> = db.rootfs.by_name().into_values().collect();
    assert_eq!(names, ["zstd", "8192"]);

    for dataset in [
        "tank",
        "/tank/x",
        "tank//x",
        "tank/x@snap",
        "tank/x y",
        "tank/-x",
        "",
    ] {
        refused(
            &json!({"storage": {"zfs": {"dataset": dataset}}}),
            "storage.zfs.dataset",
            &["rpool/nexcage"],
        );
    }
    refused(
        &json!({"storage": {"rootfs": {"quota": "lots"}}}),
        "storage.rootfs.quota",
        &["10Gi"],
    );
    refused(
        &json!({"runtime_handlers": {"db": {"rootfs": {"recordsize": "12K"}}}}),
        "runtime_handlers.db.rootfs.recordsize",
        &["power of two"],
    );
}

#[test]
fn numbers_are_held_against_their_ranges() {
    let at = "images.max_parallel_downloads";
    for bad in [json!(0), json!(65), json!(-1), json!(1.5)] {
        refused(
            &json!({"images": {"max_parallel_downloads": bad}}),
            at,
            &["from 1 to 64"],
        );
    }
    refused(
        &json!({"streaming": {"port": 65536}}),
        "streaming.port",
        &["from 0 to 65535"],
    );
    refused(
        &json!({"proxmox": {"vmids": {"first": 99}}}),
        "proxmox.vmids.first",
        &["from 100"],
    );
    refused(
        &json!({"lxc": {"idmap": {"base": 1}}}),
        "lxc.idmap.base",
        &["from 65536 to 4294967295"],
    );
    refused(
        &json!({"lxc": {"idmap": {"base": 4_294_910_000_u32}}}),
        "lxc.idmap",
        &["must not exceed 4294967295"],
    );
    refused(
        &json!({"lxc": {"idmap": {"base": 5_000_000_000_u64}}}),
        "lxc.idmap.base",
        &["4294967295"],
    );
    refused(
        &json!({"network": {"deadline_seconds": "5"}}),
        "network.deadline_seconds",
        &["from 1 to 3600"],
    );
}

#[test]
fn values_that_cannot_work_are_refused() {
    refused(
        &json!({"kubernetes": {"enabled": false}}),
        "kubernetes.enabled",
        &["must be true"],
    );
    let long = format!("/{}", "s".repeat(107));
    refused(
        &json!({"kubernetes": {"cri_socket": long}}),
        "kubernetes.cri_socket",
        &["108", "107"],
    );
    refused(
        &json!({"runtime": "lxc", "default_backend": "host"}),
        "default_backend",
        &["`runtime`"],
    );
    refused(
        &json!({"storage": {"root": "/"}}),
        "storage.root",
        &["not `/`"],
    );
    refused(
        &json!({"storage": {"root": "/a:b"}}),
        "storage.root",
        &["overlayfs"],
    );
    refused(
        &json!({"storage": {"root": "/run/nexcage/x"}}),
        "storage.root",
        &["reboot"],
    );
    refused(
        &json!({"network": {"plugin_dirs": []}}),
        "network.plugin_dirs",
        &["at least one"],
    );
    refused(
        &json!({"network": {"cache_dir": "/etc/cni/net.d"}}),
        "network.cache_dir",
        &["`network.conf_dir`"],
    );
    for prefix in ["", "-", "nexcage", "Nexcage-", "1-", "a/-"] {
        refused(
            &json!({"lxc": {"name_prefix": prefix}}),
            "lxc.name_prefix",
            &["lower case"],
        );
    }
    refused(
        &json!({"lxc": {"architecture": "x86_64"}}),
        "lxc.architecture",
        &["amd64"],
    );
    refused(
        &json!({"lxc": {"template": ""}}),
        "lxc.template",
        &["letters"],
    );
    refused(
        &json!({"security": {"capabilities": ["CAP_KILL", "CAP_KILL"]}}),
        "security.capabilities[1]",
        &["twice"],
    );
    refused(
        &json!({"streaming": {"address": "0.0.0.0"}}),
        "streaming.address",
        &["connect to"],
    );
    refused(
        &json!({"metrics": {"address": "127.0.0.1:0"}}),
        "metrics.address",
        &["port"],
    );
    refused(
        &json!({"proxmox": {"vmids": {"first": 200, "last": 100}}}),
        "proxmox.vmids",
        &["above"],
    );
    refused(
        &json!({"proxmox": {"start": "api"}}),
        "proxmox.token_file",
        &["`api`"],
    );
    refused(
        &json!({"logging": {"file": "/var/log/"}}),
        "logging.file",
        &["path of a file"],
    );
}

#[test]
fn registries_and_handlers_are_checked() {
    let registry = |host: &str, entry: Value| json!({"images": {"registries": {host: entry}}});
    for host in [
        "docker.io",
        "localhost:5000",
        "10.0.0.1",
        "[::1]:5000",
        "*",
        "registry",
    ] {
        assert!(parse(&registry(host, json!({}))).is_ok(), "{host}");
    }
    for host in [
        "",
        "http://x",
        "a/b",
        "a b",
        "x:",
        "x:99999",
        "*.io",
        "u@x",
        "Docker.io",
    ] {
        let all = problems(&registry(host, json!({})));
        assert!(
            all[0].message.contains("must be `*` or a host"),
            "{host}: {all:?}"
        );
    }
    refused(
        &registry("a", json!({"plain_http": true, "ca_file": "/x"})),
        "images.registries.a.ca_file",
        &["`plain_http`"],
    );
    refused(
        &registry("a", json!({"skip_verify": true, "ca_file": "/x"})),
        "images.registries.a.skip_verify",
        &["`ca_file`"],
    );
    refused(
        &registry("a", json!({"headers": {"authorization": "Basic x"}})),
        "images.registries.a.headers.authorization",
        &["`images.credentials_file`"],
    );
    refused(
        &registry("a", json!({"headers": {"X": "a\r\nHost: b"}})),
        "images.registries.a.headers.X",
        &["visible ASCII"],
    );
    let handler = |name: &str, entry: Value| json!({"runtime_handlers": {name: entry}});
    refused(
        &handler("", json!({"backend": "lxc"})),
        r#"runtime_handlers[""].backend"#,
        &["default_backend"],
    );
    refused(
        &handler("A", json!({})),
        "runtime_handlers.A",
        &["DNS label"],
    );
    refused(
        &handler("a", json!({"annotations": ["ok", "*x"]})),
        "runtime_handlers.a.annotations[1]",
        &["`*`"],
    );
}

#[test]
fn all_problems_are_told_at_once_with_the_files_own_indices() {
    let all = problems(&json!({
        "colour": 1,
        "logging": {"level": 3, "sink": "x"},
        "security": {"capabilities": [1, "CAP_KILL", "CAP_KILLS", null, "CAP_CHOWN", 5]},
        "images": {"max_parallel_downloads": 0},
        "kubernetes": {"enabled": false},
    }));
    let paths: Vec<&str> = all.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "colour",
            "images.max_parallel_downloads",
            "kubernetes.enabled",
            "logging.level",
            "logging.sink",
            "security.capabilities[0]",
            "security.capabilities[2]",
            "security.capabilities[3]",
            "security.capabilities[5]",
        ]
    );
    let text = parse(&json!({"a": 1, "b": 2})).unwrap_err().to_string();
    assert!(
        text.starts_with("test cannot be used:\n  a: unknown field"),
        "{text}"
    );
    assert!(text.contains("\n  b: unknown field"), "{text}");
}

#[test]
fn a_flood_of_problems_ends() {
    let many: serde_json::Map<String, Value> =
        (0..5000).map(|i| (format!("k{i}"), json!(i))).collect();
    assert_eq!(problems(&many.into()).len(), 100);
}

#[test]
fn strict_json_only() {
    for text in [
        "",
        "{",
        "{} {}",
        "{\"a\": 1,}",
        "// no\n{}",
        "{\"x\": NaN}",
        "\u{feff}{}",
    ] {
        let e = Config::parse(text, "test").unwrap_err();
        assert!(matches!(e, ConfigError::Syntax { .. }), "{text:?}: {e:?}");
    }
    let Err(ConfigError::Syntax { source, .. }) = Config::parse(
        "{\n  \"logging\": {\"level\": \"info\", \"level\": \"warn\"}}",
        "test",
    ) else {
        panic!("a key given twice was accepted");
    };
    let text = source.to_string();
    assert!(
        text.contains("\"level\" is given twice") && text.contains("line 2"),
        "{text}"
    );
}

#[test]
fn files_that_are_not_there_or_cannot_be_read() {
    let e = Config::load(Utf8Path::new("/no/such/file")).unwrap_err();
    assert!(matches!(e, ConfigError::NotFound { .. }), "{e:?}");
    let e = Config::load(Utf8Path::new("/")).unwrap_err();
    assert!(matches!(e, ConfigError::Read { .. }), "{e:?}");
}

#[test]
fn backends_and_handlers_resolve() {
    let config = parse(&json!({
        "runtime": "host",
        "runtime_handlers": {"vm": {"backend": "lxc"}, "same": {"annotations": ["a.b/*", "c"]}},
    }))
    .unwrap();
    assert_eq!(config.default_backend(), Backend::Host);
    assert_eq!(config.handler("").unwrap().backend, Backend::Host);
    assert_eq!(config.handler("vm").unwrap().backend, Backend::Lxc);
    assert_eq!(config.handler("other"), None);
    let names: Vec<String> = config.handlers().into_iter().map(|h| h.name).collect();
    assert_eq!(
        names,
        ["", "nexcage", "nexcage-lxc", "proxmox-lxc", "same", "vm"]
    );
    let same = config.handler("same").unwrap();
    assert!(same.allows_annotation("a.b/x") && same.allows_annotation("c"));
    assert!(!same.allows_annotation("cc") && !same.allows_annotation("a.c/x"));
    assert_eq!(config.cni_cache_dir(), "/var/lib/nexcage/cni");
    assert_eq!(config.spool_dir(), "/var/lib/nexcage/spool");
}
