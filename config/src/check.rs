//! Checks that no single type can make.

use camino::Utf8Path;
use serde_json::Value;

use crate::config::Config;
use crate::error::Problem;
use crate::names::ARCHITECTURES;
use crate::path;
use crate::proxmox::ProxmoxStart;

/// Room for a path in `sun_path`, without its NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// Longest `storage.run_dir`. conmon makes sockets in `<run_dir>/oci/m/<64 hex digits>/conmon-term.XXXXXX`, whose path must
/// fit into `sun_path` too.
const RUN_DIR_MAX: usize = SOCKET_PATH_MAX - "/oci/m/".len() - 64 - "/conmon-term.XXXXXX".len();

/// Headers that carry credentials or are the client's own business.
const RESERVED_HEADERS: &[&str] = &["authorization", "cookie", "host"];

/// Notes what is wrong with the whole.
pub(crate) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let mut notes = Notes(problems);
    backends(config, &mut notes);
    files(config, &mut notes);
    lxc(config, &mut notes);
    security(config, &mut notes);
    images(config, &mut notes);
    services(config, &mut notes);
    proxmox(config, &mut notes);
    handlers(config, &mut notes);
}

struct Notes<'a>(&'a mut Vec<Problem>);

impl Notes<'_> {
    /// Notes `message` unless `good`.
    fn demand(&mut self, good: bool, path: &str, message: impl Into<String>) {
        if !good {
            self.0.push(Problem {
                path: path.to_owned(),
                message: message.into(),
            });
        }
    }
}

fn backends(config: &Config, notes: &mut Notes<'_>) {
    if let (Some(family), Some(backend)) = (config.runtime, config.default_backend) {
        notes.demand(
            backend.family() == family,
            "default_backend",
            format!(
                "`{}` is not of the family that `runtime` names; change one of them or leave `runtime` out",
                backend.name()
            ),
        );
    }
    notes.demand(
        config.kubernetes.enabled,
        "kubernetes.enabled",
        "must be true: the daemon serves nothing else; to serve nothing, stop it",
    );
}

fn files(config: &Config, notes: &mut Notes<'_>) {
    let socket = &config.kubernetes.cri_socket;
    notes.demand(
        socket.as_str().len() <= SOCKET_PATH_MAX,
        "kubernetes.cri_socket",
        format!(
            "is {} bytes long, a socket's path may have {SOCKET_PATH_MAX}",
            socket.as_str().len()
        ),
    );
    let run_dir = config.storage.run_dir.as_str().len();
    notes.demand(
        run_dir <= RUN_DIR_MAX,
        "storage.run_dir",
        format!(
            "is {run_dir} bytes long; at most {RUN_DIR_MAX}, because sockets are made below it"
        ),
    );
    let names_a_file =
        |path: &Utf8Path| path.file_name().is_some() && !path.as_str().ends_with('/');
    notes.demand(
        names_a_file(socket),
        "kubernetes.cri_socket",
        "must be the path of a file",
    );
    if let Some(file) = &config.logging.file {
        notes.demand(
            names_a_file(file),
            "logging.file",
            "must be the path of a file",
        );
    }

    let storage = &config.storage;
    for (path, dir) in [
        ("lxc_path", &config.lxc_path),
        ("sandbox.netns_dir", &config.sandbox.netns_dir),
        ("storage.root", &storage.root),
        ("storage.run_dir", &storage.run_dir),
    ] {
        notes.demand(
            dir.file_name().is_some(),
            path,
            "must be a directory of its own, not `/`",
        );
    }
    notes.demand(
        !storage.root.as_str().contains([':', ',']),
        "storage.root",
        "must not contain `:` or `,`, which separate the options of overlayfs",
    );
    notes.demand(
        is_dataset(&storage.zfs.dataset),
        "storage.zfs.dataset",
        "must be a dataset below a pool, such as `rpool/nexcage`: letters, digits, `_`, `-`, `.` and `:` between slashes",
    );
    notes.demand(
        !storage.root.starts_with(&*storage.run_dir),
        "storage.root",
        "must not be in `storage.run_dir`, which a reboot clears",
    );

    let network = &config.network;
    notes.demand(
        !network.plugin_dirs.is_empty(),
        "network.plugin_dirs",
        "must name at least one directory",
    );
    notes.demand(
        network.cache_dir.as_ref() != Some(&network.conf_dir),
        "network.cache_dir",
        "must not be `network.conf_dir`: results would be taken for configurations",
    );
}

/// zfsconcepts(7) has the characters; 128 leaves room in ZFS's 255 for what comes below.
fn is_dataset(name: &str) -> bool {
    let component = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b))
    };
    name.len() <= 128 && name.contains('/') && name.split('/').all(component)
}

fn lxc(config: &Config, notes: &mut Notes<'_>) {
    let lxc = &config.lxc;
    for (path, value) in [
        ("lxc.template", &lxc.template),
        ("lxc.distribution", &lxc.distribution),
        ("lxc.release", &lxc.release),
    ] {
        let good = |text: &String| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        notes.demand(
            value.as_ref().is_none_or(good),
            path,
            "must be a name of letters, digits, `.`, `_` and `-`",
        );
    }
    notes.demand(
        lxc.architecture
            .as_ref()
            .is_none_or(|arch| ARCHITECTURES.contains(&arch.as_str())),
        "lxc.architecture",
        format!("must be one of {}", ARCHITECTURES.join(", ")),
    );
    let prefix = lxc.name_prefix.as_str();
    let named = prefix.len() <= 32
        && prefix.starts_with(|c: char| c.is_ascii_lowercase())
        && prefix.ends_with('-')
        && prefix.bytes().all(is_label_byte);
    notes.demand(
        named,
        "lxc.name_prefix",
        "must be lower case letters, digits and `-`, beginning with a letter and ending with `-`, at most 32 bytes",
    );
    notes.demand(
        lxc.idmap.base.checked_add(lxc.idmap.size).is_some(),
        "lxc.idmap",
        "`base` + `size` must not exceed 4294967295",
    );
}

fn security(config: &Config, notes: &mut Notes<'_>) {
    let security = &config.security;
    let profile = &security.apparmor_profile;
    notes.demand(
        !profile.is_empty() && !profile.contains(|c: char| c.is_whitespace() || c.is_control()),
        "security.apparmor_profile",
        "must be the name of a profile, `generated` or `unconfined`",
    );
    for (i, capability) in security.capabilities.iter().enumerate() {
        notes.demand(
            !security.capabilities[..i].contains(capability),
            &path::index("security.capabilities", i),
            format!("{} is given twice", capability.as_str()),
        );
    }
}

fn images(config: &Config, notes: &mut Notes<'_>) {
    for (host, registry) in &config.images.registries {
        let at = path::key("images.registries", host);
        notes.demand(
            host == "*" || is_registry_host(host),
            &at,
            "must be `*` or a host, perhaps with `:port`, as it stands in image references",
        );
        let demand_tls = "has no effect with `plain_http`; remove one of them";
        if registry.plain_http {
            notes.demand(
                registry.ca_file.is_none(),
                &path::key(&at, "ca_file"),
                demand_tls,
            );
            notes.demand(
                !registry.skip_verify,
                &path::key(&at, "skip_verify"),
                demand_tls,
            );
        }
        notes.demand(
            registry.ca_file.is_none() || !registry.skip_verify,
            &path::key(&at, "skip_verify"),
            "makes `ca_file` meaningless; remove one of them",
        );
        for (name, value) in &registry.headers {
            let at = path::key(&path::key(&at, "headers"), name);
            notes.demand(
                is_header_name(name),
                &at,
                "must be the name of an HTTP header (RFC 9110, token)",
            );
            notes.demand(
                !RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()),
                &at,
                "cannot be set here; credentials belong into `images.credentials_file`",
            );
            notes.demand(
                value
                    .bytes()
                    .all(|b| b == b'\t' || (b' '..=b'~').contains(&b)),
                &at,
                "must be visible ASCII, spaces and tabs",
            );
        }
    }
    for (i, pattern) in config.images.pinned.iter().enumerate() {
        notes.demand(
            !pattern.is_empty() && !pattern.contains(char::is_whitespace),
            &path::index("images.pinned", i),
            "must be the name of an image, in which `*` stands for any characters",
        );
    }
}

fn services(config: &Config, notes: &mut Notes<'_>) {
    notes.demand(
        !config.streaming.address.is_unspecified(),
        "streaming.address",
        "must be an address that clients can connect to, such as 127.0.0.1",
    );
    notes.demand(
        config.metrics.address.port() != 0,
        "metrics.address",
        "must have a port from 1 to 65535",
    );
}

fn proxmox(config: &Config, notes: &mut Notes<'_>) {
    let Some(proxmox) = &config.proxmox else {
        return;
    };
    let label = |name: &String| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let ends = name.starts_with('-') || name.ends_with('-');
        !name.is_empty() && name.len() <= 63 && !ends && name.bytes().all(legal)
    };
    notes.demand(
        proxmox.node.as_ref().is_none_or(label),
        "proxmox.node",
        "must be the name of a node: letters, digits and `-`, with no `-` at either end",
    );
    notes.demand(
        proxmox.pve_dir.file_name().is_some(),
        "proxmox.pve_dir",
        "must be a directory of its own, not `/`",
    );
    notes.demand(
        proxmox.api_url.as_str().starts_with("https://"),
        "proxmox.api_url",
        "must be an `https` URL: what is sent there is a secret",
    );
    notes.demand(
        proxmox.vmids.first <= proxmox.vmids.last,
        "proxmox.vmids",
        "`first` must not be above `last`",
    );
    notes.demand(
        proxmox.start != ProxmoxStart::Api || proxmox.token_file.is_some(),
        "proxmox.token_file",
        "must be given where `start` is `api`",
    );
}

fn handlers(config: &Config, notes: &mut Notes<'_>) {
    for (name, handler) in &config.runtime_handlers {
        let at = path::key("runtime_handlers", name);
        let label = name.len() <= 63
            && name.bytes().all(is_label_byte)
            && !name.starts_with('-')
            && !name.ends_with('-');
        notes.demand(
            label,
            &at,
            "must be a DNS label: at most 63 lower case letters, digits and `-`, with no `-` at either end",
        );
        notes.demand(
            !name.is_empty() || handler.backend.is_none(),
            &path::key(&at, "backend"),
            "cannot be set for the handler \"\"; set `default_backend`",
        );
        for (i, pattern) in handler.annotations.iter().enumerate() {
            let name = pattern.strip_suffix('*').unwrap_or(pattern);
            notes.demand(
                !pattern.is_empty() && !name.contains('*'),
                &path::index(&path::key(&at, "annotations"), i),
                "must be the name of an annotation, or the beginning of names followed by `*`",
            );
        }
    }
}

fn is_label_byte(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
}

/// RFC 9110, section 5.6.2.
fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A host name, an IPv4 address or an IPv6 address in brackets, perhaps with a port.
fn is_registry_host(text: &str) -> bool {
    let same = |url: &url::Url| {
        let host = url.host_str().unwrap_or_default();
        let port = text.strip_prefix(host);
        host.is_empty() || port.is_some_and(|port| port.is_empty() || port.starts_with(':'))
    };
    !text.contains(['/', '@', '?', '#', '\\', '*'])
        && !text.ends_with(':')
        && url::Url::parse(&format!("http://{text}/")).is_ok_and(|url| same(&url))
}

/// Takes out of `value` what is not an object where the schema has one (serde would take a list for the
/// fields in order), and what is not a number in the schema's range where it has a number.
pub(crate) fn shapes(schema: &Value, value: &mut Value, at: &str, problems: &mut Vec<Problem>) {
    let Value::Object(map) = value else { return };
    map.retain(|key, value| {
        let at = path::key(at, key);
        let Some(schema) = property(schema, key) else {
            return true;
        };
        match misshapen(schema, value) {
            None => {
                shapes(schema, value, &at, problems);
                true
            }
            Some(message) => {
                problems.push(Problem { path: at, message });
                false
            }
        }
    });
}

/// The schema of a key, without the `null` of an optional object.
fn property<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    let named = schema.get("properties").and_then(|p| p.get(key));
    let any = || schema.get("additionalProperties").filter(|s| s.is_object());
    let found = named.or_else(any)?;
    let choices = found.get("anyOf").and_then(Value::as_array);
    Some(
        choices
            .and_then(|c| c.iter().find(|s| is_object(s)))
            .unwrap_or(found),
    )
}

/// Whether the schema is that of an object.
pub(crate) fn is_object(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object")
}

/// Why a value cannot be what the schema says of objects and whole numbers.
pub(crate) fn misshapen(schema: &Value, value: &Value) -> Option<String> {
    if is_object(schema) {
        return (!value.is_object()).then(|| format!("must be an object, not {}", shown(value)));
    }
    let types = schema.get("type")?;
    let optional = types.get(0).is_some();
    let is_number = types == "integer" || types.get(0).is_some_and(|first| first == "integer");
    if !is_number || (optional && value.is_null()) {
        return None;
    }
    let (min, max) = bounds(schema);
    let inside = value
        .as_u64()
        .is_some_and(|n| n >= min && max.is_none_or(|max| n <= max));
    (!inside).then(|| match max {
        Some(max) => format!(
            "must be a whole number from {min} to {max}, not {}",
            shown(value)
        ),
        None => format!(
            "must be a whole number of at least {min}, not {}",
            shown(value)
        ),
    })
}

/// The range of whole numbers that the schema allows; no number here is signed.
pub(crate) fn bounds(schema: &Value) -> (u64, Option<u64>) {
    let bound = |name| schema.get(name).and_then(Value::as_u64);
    let is_u32 = schema
        .get("format")
        .is_some_and(|format| format == "uint32");
    let widest = is_u32.then_some(u64::from(u32::MAX));
    (bound("minimum").unwrap_or(0), bound("maximum").or(widest))
}

/// A value in few words.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(_) => "a string".into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
