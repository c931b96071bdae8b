//! What root filesystems of containers shall be: by configuration, by runtime handler, by pod.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::ValueError;

/// Properties of the root filesystems of containers. What is left out is decided further up: a pod's annotation counts before
/// its runtime handler, that before `storage.rootfs`, that before the storage driver's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RootfsProperties {
    /// Bytes that a container may write to its root filesystem, as a Kubernetes quantity: `"10Gi"`, `"500M"`. On ZFS
    /// `refquota`, and beyond it writes fail with EDQUOT, as ZFS has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quantity>,
    /// `recordsize` of ZFS: a power of two from `"512"` to `"16M"`. Databases want the size of their pages, `"8K"` or
    /// `"16K"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recordsize: Option<RecordSize>,
    /// `compression` of ZFS: `"lz4"`, `"zstd"`, `"off"`, ... (zfsprops(7)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// `sync` of ZFS. With `disabled`, up to some seconds of what a container has flushed are lost with the machine's power.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncMode>,
}

impl RootfsProperties {
    /// Begins the names of the pod annotations that set a property: `nexcage.storage.quota`, ...
    pub const ANNOTATIONS: &str = "nexcage.storage.";

    /// Sets the property called `name`, as an annotation does.
    ///
    /// # Errors
    ///
    /// An unknown name or a value that the property cannot have.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ValueError> {
        match name {
            "quota" => self.quota = Some(value.parse()?),
            "recordsize" => self.recordsize = Some(value.parse()?),
            "compression" => self.compression = Some(value.parse()?),
            "sync" => self.sync = Some(value.parse()?),
            _ => {
                return Err(ValueError::new(
                    "a property: quota, recordsize, compression or sync",
                    name,
                ));
            }
        }
        Ok(())
    }

    /// These, and where they say nothing, `others`.
    #[must_use]
    pub fn or(self, others: &Self) -> Self {
        Self {
            quota: self.quota.or(others.quota),
            recordsize: self.recordsize.or(others.recordsize),
            compression: self.compression.or_else(|| others.compression.clone()),
            sync: self.sync.or(others.sync),
        }
    }

    /// All but the quota, by their names in ZFS.
    pub fn by_name(&self) -> BTreeMap<String, String> {
        let recordsize = self.recordsize.map(|size| size.0.to_string());
        let compression = self.compression.as_ref().map(|c| c.0.clone());
        let sync = self.sync.map(|sync| sync.name().to_owned());
        [
            ("recordsize", recordsize),
            ("compression", compression),
            ("sync", sync),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }
}

/// A number of bytes, written as a Kubernetes quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(u64);

impl Quantity {
    /// The number.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Quantity {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const UNITS: [(&str, u64); 11] = [
            ("Ki", 1 << 10),
            ("Mi", 1 << 20),
            ("Gi", 1 << 30),
            ("Ti", 1 << 40),
            ("Pi", 1 << 50),
            ("k", 1_000),
            ("M", 1_000_000),
            ("G", 1_000_000_000),
            ("T", 1_000_000_000_000),
            ("P", 1_000_000_000_000_000),
            ("", 1),
        ];
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, n)| *n);
        let bytes = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
        match bytes {
            Some(bytes) if bytes > 0 => Ok(Self(bytes)),
            _ => Err(ValueError::new(
                "a Kubernetes quantity of bytes greater than 0, such as 10Gi or 500M",
                text,
            )),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `recordsize` in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSize(u32);

impl FromStr for RecordSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (number, factor) = match text.strip_suffix(['K', 'k']) {
            Some(number) => (number, 1 << 10),
            None => match text.strip_suffix(['M', 'm']) {
                Some(number) => (number, 1 << 20),
                None => (text, 1),
            },
        };
        let plain = number.bytes().all(|b| b.is_ascii_digit());
        let bytes = number.parse::<u32>().ok().filter(|_| plain);
        match bytes.and_then(|number| number.checked_mul(factor)) {
            Some(bytes) if bytes.is_power_of_two() && (512..=16 << 20).contains(&bytes) => {
                Ok(Self(bytes))
            }
            _ => Err(ValueError::new("a power of two from 512 to 16M", text)),
        }
    }
}

impl fmt::Display for RecordSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes % (1 << 20) == 0 => write!(f, "{}M", bytes >> 20),
            bytes if bytes % (1 << 10) == 0 => write!(f, "{}K", bytes >> 10),
            bytes => bytes.fmt(f),
        }
    }
}

/// A compression algorithm as ZFS names it. ZFS itself knows which there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression(String);

impl FromStr for Compression {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let named = text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        match named {
            true => Ok(Self(text.to_owned())),
            false => Err(ValueError::new(
                "the name of a compression algorithm, such as lz4, zstd or off",
                text,
            )),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a flush of a container returns (zfsprops(7), `sync`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// When it is on stable storage.
    Standard,
    /// Every write, as if flushed.
    Always,
    /// At once: nothing waits for the disk.
    Disabled,
}

impl SyncMode {
    fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Always => "always",
            Self::Disabled => "disabled",
        }
    }
}

impl FromStr for SyncMode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        [Self::Standard, Self::Always, Self::Disabled]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| ValueError::new("standard, always or disabled", text))
    }
}

/// In the file they are strings.
macro_rules! as_text {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

as_text!(Quantity, "Quantity", "^[0-9]+([KMGTP]i|[kMGTP])?$");
as_text!(RecordSize, "RecordSize", "^[0-9]+[KMkm]?$");
as_text!(Compression, "Compression", "^[a-z][a-z0-9-]*$");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        let bytes = |text: &str| text.parse::<Quantity>().map(Quantity::bytes).ok();
        assert_eq!(bytes("10Gi"), Some(10 << 30));
        assert_eq!(bytes("500M"), Some(500_000_000));
        assert_eq!(bytes("4096"), Some(4096));
        for bad in [
            "", "0", "Gi", "-1", "1.5Gi", "10 Gi", "10gi", "99999Pi", "+1",
        ] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn record_sizes_are_powers_of_two() {
        let shown = |text: &str| text.parse::<RecordSize>().map(|s| s.to_string()).ok();
        assert_eq!(shown("16K").as_deref(), Some("16K"));
        assert_eq!(shown("16384").as_deref(), Some("16K"));
        assert_eq!(shown("1m").as_deref(), Some("1M"));
        assert_eq!(shown("512").as_deref(), Some("512"));
        for bad in ["", "K", "256", "17K", "32M", "8 K", "+8K"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_nearest_word_counts() {
        let mut pod = RootfsProperties::default();
        pod.set("recordsize", "8K").unwrap();
        let mut handler = RootfsProperties::default();
        handler.set("recordsize", "16K").unwrap();
        handler.set("quota", "1Gi").unwrap();
        handler.set("sync", "always").unwrap();
        let both = pod.or(&handler);
        assert_eq!(both.quota.map(Quantity::bytes), Some(1 << 30));
        let names: Vec<_> = both.by_name().into_iter().collect();
        let expected = [("recordsize", "8192"), ("sync", "always")];
        assert_eq!(names, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert!(pod_error("color", "red").contains("quota"));
        assert!(pod_error("sync", "never").contains("standard"));
        assert!(pod_error("compression", "LZ4 fast").contains("lz4"));
    }

    fn pod_error(name: &str, value: &str) -> String {
        let set = RootfsProperties::default().set(name, value);
        set.unwrap_err().to_string()
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(name in "(quota|recordsize|compression|sync)", value in ".*") {
            let mut properties = RootfsProperties::default();
            if properties.set(&name, &value).is_ok() {
                let json = serde_json::to_value(&properties).unwrap();
                prop_assert_eq!(serde_json::from_value::<RootfsProperties>(json).unwrap(), properties);
            }
        }
    }
}
