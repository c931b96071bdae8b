//! Versions of the protocol.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A version of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    pub(crate) const V0_4_0: Self = Self(0, 4, 0);
    pub(crate) const V1_1_0: Self = Self(1, 1, 0);

    /// All versions spoken here, the newest first. Older ones have no chains of plugins.
    pub(crate) const SPOKEN: [Self; 5] = [
        Self::V1_1_0,
        Self(1, 0, 0),
        Self::V0_4_0,
        Self(0, 3, 1),
        Self(0, 3, 0),
    ];

    /// CHECK exists, and DEL gets `prevResult`.
    pub(crate) fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// GC and STATUS exist.
    pub(crate) fn has_gc_and_status(self) -> bool {
        self >= Self::V1_1_0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
        match numbers.as_deref() {
            Some(&[major, minor, patch]) => Ok(Self(major, minor, patch)),
            _ => Err(NotAVersion),
        }
    }
}

/// Digits alone: `parse` would take a sign too.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[derive(Debug, thiserror::Error)]
#[error("must be a version, such as 1.0.0")]
pub(crate) struct NotAVersion;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A list of versions for messages.
pub(crate) fn listed(versions: &[Version]) -> String {
    let texts: Vec<String> = versions.iter().map(Version::to_string).collect();
    texts.join(", ")
}
