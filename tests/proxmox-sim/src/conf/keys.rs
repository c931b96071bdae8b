//! The keys of a container's configuration, and the keys of LXC that it may hold. Read in pve-container 6.1.10; the reference, section 2.

use super::property::{Kind, Property, parse};
use super::text::{boolean, split_list};
use super::volume::Volume;

/// What a key holds, in the file and in requests.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// Yes or no.
    Bool,
    /// A whole number in this range, which only requests are held to.
    Int(i64, i64),
    /// A number not below 0, and not above this.
    Number(i64),
    /// One of these, which only requests are held to.
    Enum(&'static [&'static str]),
    /// Any text.
    Text,
    /// A text of some form; the error is in Proxmox's words.
    Form(fn(&str, &str) -> Result<(), String>),
}

const LOCKS: &[&str] = &[
    "backup",
    "create",
    "destroyed",
    "disk",
    "fstrim",
    "migrate",
    "mounted",
    "rollback",
    "snapshot",
    "snapshot-delete",
];
const ARCHS: &[&str] = &["amd64", "i386", "arm64", "armhf", "riscv32", "riscv64"];
const OSTYPES: &[&str] = &[
    "debian",
    "devuan",
    "ubuntu",
    "centos",
    "fedora",
    "opensuse",
    "archlinux",
    "alpine",
    "gentoo",
    "nixos",
    "unmanaged",
];

const MAX: i64 = i64::MAX;

const FEATURES: [Property; 6] = [
    Property::new("mount", Kind::Text),
    Property::new("nesting", Kind::Bool),
    Property::new("keyctl", Kind::Bool),
    Property::new("fuse", Kind::Bool),
    Property::new("mknod", Kind::Bool),
    Property::new("force_rw_sys", Kind::Bool),
];

const NETWORK: [Property; 15] = [
    Property::required("name", Kind::Text),
    Property::new("type", Kind::pattern(|text| text == "veth")),
    Property::new("bridge", Kind::Text),
    Property::new("hwaddr", Kind::Text),
    Property::new("mtu", Kind::Int(64, 65535)),
    Property::new("ip", Kind::Text),
    Property::new("gw", Kind::Text),
    Property::new("ip6", Kind::Text),
    Property::new("gw6", Kind::Text),
    Property::new("firewall", Kind::Bool),
    Property::new("tag", Kind::Int(1, 4094)),
    Property::new("trunks", Kind::Text),
    Property::new("rate", Kind::Number),
    Property::new("link_down", Kind::Bool),
    Property::new("host-managed", Kind::Bool),
];

const DEVICE: [Property; 5] = [
    Property::new(
        "path",
        Kind::Like(|path| path.starts_with("/dev/"), "no device path"),
    ),
    Property::new("mode", Kind::Text),
    Property::new("uid", Kind::Int(0, MAX)),
    Property::new("gid", Kind::Int(0, MAX)),
    Property::new("deny-write", Kind::Bool),
];

/// What a key of the configuration holds; `None` is no such key.
pub fn value_of(key: &str) -> Option<Value> {
    Some(match key {
        "onboot" | "template" | "console" | "protection" | "unprivileged" | "debug" => Value::Bool,
        "tty" => Value::Int(0, 6),
        "cores" => Value::Int(1, 8192),
        "cpuunits" => Value::Int(0, 500_000),
        "memory" => Value::Int(16, MAX),
        "swap" | "snaptime" => Value::Int(0, MAX),
        "cpulimit" => Value::Number(8192),
        "lock" => Value::Enum(LOCKS),
        "arch" => Value::Enum(ARCHS),
        "ostype" => Value::Enum(OSTYPES),
        "cmode" => Value::Enum(&["shell", "console", "tty"]),
        "hostname" => Value::Form(|_, text| dns_name(text)),
        "tags" => Value::Form(|_, text| tags(text)),
        "features" => Value::Form(|_, text| parse(text, &FEATURES, None).map(drop)),
        "rootfs" => Value::Form(|key, text| Volume::parse(key, text).map(drop)),
        "description" | "startup" | "searchdomain" | "nameserver" | "timezone" | "parent"
        | "entrypoint" | "env" | "hookscript" => Value::Text,
        _ => return numbered(key),
    })
}

/// `mp0` to `mp255` and the like.
fn numbered(key: &str) -> Option<Value> {
    let name = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &key[name.len()..];
    let number: u32 = digits.parse().ok()?;
    if digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    let (count, value) = match name {
        "mp" => (
            256,
            Value::Form(|key, text| Volume::parse(key, text).map(drop)),
        ),
        "net" => (
            32,
            Value::Form(|_, text| parse(text, &NETWORK, None).map(drop)),
        ),
        "dev" => (
            256,
            Value::Form(|_, text| parse(text, &DEVICE, Some("path")).map(drop)),
        ),
        "unused" => (256, Value::Text),
        _ => return None,
    };
    (number < count).then_some(value)
}

/// A value as it is kept, or what is wrong with one in the file, in Proxmox's words.
///
/// # Errors
///
/// The type is wrong. Ranges and lists of values are not looked at: a file may be edited by hand.
pub fn check_in_file(key: &str, text: &str) -> Result<String, String> {
    let value = value_of(key).ok_or_else(|| format!("unknown setting '{key}'"))?;
    let wrong = |kind: &str| Err(format!("type check ('{kind}') failed - got '{text}'"));
    match value {
        Value::Bool => match boolean(text) {
            Some(yes) => Ok(u8::from(yes).to_string()),
            None => wrong("boolean"),
        },
        Value::Int(..) => match text.bytes().all(|b| b.is_ascii_digit()) {
            true => Ok(text
                .parse::<u64>()
                .map_or_else(|_| text.to_owned(), |n| n.to_string())),
            false => wrong("integer"),
        },
        Value::Number(_) => match is_number(text) {
            true => Ok(text.to_owned()),
            false => wrong("number"),
        },
        Value::Form(check) => check(key, text).map(|()| text.to_owned()),
        Value::Enum(_) | Value::Text => Ok(text.to_owned()),
    }
}

/// What is wrong with a value in a request, in Proxmox's words.
///
/// # Errors
///
/// As said.
pub fn check_in_request(key: &str, text: &str) -> Result<(), String> {
    match value_of(key) {
        None => Err(
            "property is not defined in schema and the schema does not allow additional \
                     properties"
                .to_owned(),
        ),
        Some(Value::Bool) => Kind::Bool.check(text),
        Some(Value::Int(min, max)) => Kind::Int(min, max).check(text),
        Some(Value::Number(max)) => {
            Kind::Number.check(text)?;
            let number: f64 = text.parse().unwrap_or(0.0);
            #[expect(clippy::cast_precision_loss, reason = "a few thousands")]
            let max_number = max as f64;
            match number {
                n if n > max_number => Err(format!("value must have a maximum value of {max}")),
                n if n < 0.0 => Err("value must have a minimum value of 0".to_owned()),
                _ => Ok(()),
            }
        }
        Some(Value::Enum(values)) => match values.contains(&text) {
            true => Ok(()),
            false => Err(format!(
                "value '{text}' does not have a value in the enumeration '{}'",
                values.join(", ")
            )),
        },
        Some(Value::Form(check)) => {
            check(key, text).map_err(|error| format!("invalid format - {error}\n"))
        }
        Some(Value::Text) => Ok(()),
    }
}

fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part),
        None => digits(text),
    }
}

fn dns_name(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    match text.len() <= 255 && text.split('.').all(label) {
        true => Ok(()),
        false => Err("value does not look like a valid DNS name".to_owned()),
    }
}

fn tags(text: &str) -> Result<(), String> {
    let good = |tag: &&str| {
        let mut bytes = tag.bytes();
        let first = bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        first && bytes.all(|b| b.is_ascii_alphanumeric() || b"_-+.".contains(&b))
    };
    match split_list(text).iter().all(good) {
        true => Ok(()),
        false => Err("invalid characters in tag".to_owned()),
    }
}

/// What becomes of a key of LXC in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LxcKey {
    /// It stays.
    Allowed,
    /// It stays, with a warning.
    Deprecated,
    /// It is refused for a reason.
    Forbidden(&'static str),
    /// It is not known, and refused.
    Unknown,
}

/// Whether a configuration may hold this key.
pub fn lxc_key(key: &str) -> LxcKey {
    match key {
        "lxc.rootfs.path" => LxcKey::Forbidden("lxc.rootfs.path is auto generated from rootfs"),
        "lxc.rootfs.options" => LxcKey::Forbidden(
            "lxc.rootfs.options is not supported, please use mount point options in the \"rootfs\" key",
        ),
        _ if LXC_KEYS.contains(&key) => LxcKey::Allowed,
        _ if key.starts_with("lxc.cgroup.") => LxcKey::Deprecated,
        _ if LXC_FAMILIES.iter().any(|family| key.starts_with(family)) => LxcKey::Allowed,
        _ => LxcKey::Unknown,
    }
}

const LXC_FAMILIES: [&str; 3] = ["lxc.cgroup2.", "lxc.prlimit.", "lxc.net."];

const LXC_KEYS: [&str; 61] = [
    "lxc.apparmor.profile",
    "lxc.apparmor.allow_incomplete",
    "lxc.apparmor.allow_nesting",
    "lxc.apparmor.raw",
    "lxc.selinux.context",
    "lxc.include",
    "lxc.arch",
    "lxc.uts.name",
    "lxc.signal.halt",
    "lxc.signal.reboot",
    "lxc.signal.stop",
    "lxc.init.cmd",
    "lxc.init.cwd",
    "lxc.init.uid",
    "lxc.init.gid",
    "lxc.init.groups",
    "lxc.pty.max",
    "lxc.console.logfile",
    "lxc.console.path",
    "lxc.tty.max",
    "lxc.devtty.dir",
    "lxc.hook.autodev",
    "lxc.autodev",
    "lxc.kmsg",
    "lxc.mount.fstab",
    "lxc.mount.entry",
    "lxc.mount.auto",
    "lxc.rootfs.mount",
    "lxc.cap.drop",
    "lxc.cap.keep",
    "lxc.seccomp.profile",
    "lxc.seccomp.notify.proxy",
    "lxc.seccomp.notify.cookie",
    "lxc.idmap",
    "lxc.hook.pre-start",
    "lxc.hook.pre-mount",
    "lxc.hook.mount",
    "lxc.hook.start",
    "lxc.hook.stop",
    "lxc.hook.post-stop",
    "lxc.hook.clone",
    "lxc.hook.destroy",
    "lxc.hook.version",
    "lxc.log.level",
    "lxc.log.file",
    "lxc.start.auto",
    "lxc.start.delay",
    "lxc.start.order",
    "lxc.group",
    "lxc.environment",
    "lxc.environment.runtime",
    "lxc.environment.hooks",
    "lxc.sysctl.fs.mqueue",
    "lxc.sysctl.kernel.msgmax",
    "lxc.sysctl.kernel.msgmnb",
    "lxc.sysctl.kernel.msgmni",
    "lxc.sysctl.kernel.sem",
    "lxc.sysctl.kernel.shmall",
    "lxc.sysctl.kernel.shmmax",
    "lxc.sysctl.kernel.shmmni",
    "lxc.sysctl.kernel.shm_rmid_forced",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_types() {
        for (key, text) in [
            ("memory", "128"),
            ("cpulimit", "0.5"),
            ("onboot", "1"),
            ("hostname", "pod-1.example"),
            ("tags", "k8s;nexcage;kube-system"),
            ("net0", "name=eth0,bridge=vmbr0,tag=5"),
            ("mp255", "/srv,mp=/srv"),
            ("features", "nesting=1"),
            ("ostype", "unmanaged"),
        ] {
            assert_eq!(check_in_request(key, text), Ok(()), "{key}");
            assert_eq!(check_in_file(key, text).as_deref(), Ok(text));
        }
        for (key, text) in [
            ("memory", "15"),
            ("memory", "lots"),
            ("cpulimit", "-1"),
            ("cpulimit", "1e9"),
            ("hostname", "pod_1"),
            ("tags", "ns/pod"),
            ("net32", "name=eth0"),
            ("mp256", "/srv,mp=/srv"),
            ("mp01", "/srv,mp=/srv"),
            ("ostype", "windows"),
            ("lxc", "x"),
            ("nexcage", "x"),
        ] {
            assert!(check_in_request(key, text).is_err(), "{key}: {text}");
        }
        // Only types are checked in a file.
        assert!(check_in_file("memory", "15").is_ok());
        assert_eq!(check_in_file("onboot", "yes").as_deref(), Ok("1"));
        assert!(check_in_file("memory", "-1").is_err());
    }

    #[test]
    fn keys_of_lxc() {
        for key in [
            "lxc.include",
            "lxc.init.cmd",
            "lxc.cgroup2.memory.max",
            "lxc.net.0.type",
        ] {
            assert_eq!(lxc_key(key), LxcKey::Allowed, "{key}");
        }
        assert_eq!(lxc_key("lxc.cgroup.dir.container"), LxcKey::Deprecated);
        for key in [
            "lxc.hook.start-host",
            "lxc.namespace.share.net",
            "lxc.proc.oom_score_adj",
            "lxc.sysctl.net.ipv4.ip_forward",
            "lxc.no_new_privs",
            "lxc.monitor.unshare",
            "lxc.console.size",
            "lxc.rootfs.managed",
        ] {
            assert_eq!(lxc_key(key), LxcKey::Unknown, "{key}");
        }
        assert!(matches!(lxc_key("lxc.rootfs.path"), LxcKey::Forbidden(_)));
    }
}
