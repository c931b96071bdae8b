//! A container's configuration: `/etc/pve/nodes/<node>/lxc/<vmid>.conf`. The grammar is that of the reference, section 2.
//!
//! Reading and writing are pure, and what is written differs from what was read as it does on a real node: keys are sorted, LXC's come last,
//! what is not understood is gone, with a warning.

mod keys;
mod pending;
mod property;
mod read;
mod text;
mod volume;
mod write;

use std::collections::BTreeMap;

pub use keys::LxcKey;
pub use keys::Value;
pub use keys::check_in_file;
pub use keys::check_in_request;
pub use keys::lxc_key;
pub use keys::value_of;
pub use property::Kind;
pub use property::Property;
pub use property::parse as parse_property;
pub use text::boolean;
pub use text::decode;
pub use text::encode;
pub use text::split_list;
pub use volume::IdMap;
pub use volume::Source;
pub use volume::Volume;

/// A configuration with what waits to be applied and its snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// What holds now.
    pub current: Section,
    /// `[pve:pending]`: what will hold when the container has stopped.
    pub pending: Section,
    /// Keys that will be gone then.
    pub delete: Vec<String>,
    /// By name.
    pub snapshots: BTreeMap<String, Section>,
}

/// One part of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Lines of comment, decoded; each ends with a line end.
    pub description: String,
    /// Keys and values, as they are written.
    pub values: BTreeMap<String, String>,
    /// `lxc.environment.runtime`: `NAME=value`.
    pub env: Vec<String>,
    /// LXC's own keys, in order.
    pub lxc: Vec<(String, String)>,
}

impl Section {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Whether a key is there and says yes.
    pub fn is(&self, key: &str) -> bool {
        self.get(key).and_then(boolean).unwrap_or(false)
    }

    /// A number, if the key is there and holds one.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }

    /// Whether one of LXC's keys is there.
    pub fn has_lxc(&self, key: &str) -> bool {
        self.lxc.iter().any(|(known, _)| known == key)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests;
