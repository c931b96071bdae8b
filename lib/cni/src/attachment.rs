//! One interface in one pod's network namespace.

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::statfs;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::CniError;

/// Longest name of an interface: `IFNAMSIZ` less its NUL.
const IFNAME_MAX: usize = 15;

/// `NSFS_MAGIC` of linux/magic.h: what a pinned namespace is.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// One interface in one pod's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// `CNI_CONTAINERID`: the pod sandbox's id. Letters, digits, `_`, `.` and `-`, not beginning with a sign.
    pub container_id: String,
    /// `CNI_NETNS`: path of the network namespace. Only DEL can do without.
    pub netns: Option<Utf8PathBuf>,
    /// `CNI_IFNAME`: the interface's name inside, such as `eth0`.
    pub ifname: String,
    /// `CNI_ARGS`, in this order. Names and values without `;`, names without `=`.
    pub args: Vec<(String, String)>,
    /// What plugins get as `runtimeConfig`, by capability (`portMappings`, `dns`, `bandwidth`, ...); each plugin gets those
    /// that its configuration declares.
    pub capabilities: Map<String, Value>,
}

impl Attachment {
    /// Refuses what a plugin would misunderstand, by field.
    pub(crate) fn validate(&self) -> Result<(), CniError> {
        let refuse = |field, reason| Err(CniError::Attachment { field, reason });
        if !is_identifier(&self.container_id) {
            return refuse(
                "container_id",
                "must be letters, digits, `_`, `.` and `-`, beginning with a letter or digit",
            );
        }
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let name = self.ifname.as_str();
        if name.is_empty()
            || name.len() > IFNAME_MAX
            || matches!(name, "." | "..")
            || name.contains(bad)
        {
            return refuse(
                "ifname",
                "must be 1 to 15 bytes without `/`, `:` and white space, and not `.` or `..`",
            );
        }
        let separates = |text: &str| text.contains([';', '\0']);
        let odd = self.args.iter().any(|(name, value)| {
            name.is_empty() || name.contains('=') || separates(name) || separates(value)
        });
        if odd {
            return refuse("args", "names must not contain `=` or `;`, values no `;`");
        }
        Ok(())
    }

    /// `CNI_ARGS`.
    pub(crate) fn args_text(&self) -> String {
        let pairs: Vec<String> = self.args.iter().map(|(k, v)| format!("{k}={v}")).collect();
        pairs.join(";")
    }

    /// The namespace, which must exist.
    pub(crate) fn living_netns(&self) -> Result<&Utf8Path, CniError> {
        match self.netns.as_deref() {
            Some(path) if is_netns(path) => Ok(path),
            path => Err(CniError::NoNetns {
                path: path.unwrap_or(Utf8Path::new("")).to_owned(),
            }),
        }
    }
}

/// What the specification allows for container ids and network names (section 2).
pub(crate) fn is_identifier(text: &str) -> bool {
    let sign = |b: u8| matches!(b, b'_' | b'.' | b'-');
    text.bytes().all(|b| b.is_ascii_alphanumeric() || sign(b))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Whether a namespace is (still) there: after a reboot, what was a pinned namespace is an empty file.
pub(crate) fn is_netns(path: &Utf8Path) -> bool {
    statfs(path.as_std_path()).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(NSFS_MAGIC))
}
