//! Types of single values that know what they may be.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use crate::names;

/// Why a value is not allowed, and what is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {allowed}, not {found:?}")]
pub struct ValueError {
    allowed: &'static str,
    found: String,
}

impl ValueError {
    pub(crate) fn new(allowed: &'static str, found: &str) -> Self {
        Self {
            allowed,
            found: found.to_owned(),
        }
    }
}

/// An absolute path without `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AbsolutePath(Utf8PathBuf);

impl AbsolutePath {
    /// Takes a path.
    ///
    /// # Errors
    ///
    /// A relative one, or one with `..` or control characters in it.
    pub fn new(path: impl Into<Utf8PathBuf>) -> Result<Self, ValueError> {
        let path = path.into();
        let upward = path.components().any(|c| c == Utf8Component::ParentDir);
        if path.is_absolute() && !upward && !path.as_str().contains(char::is_control) {
            return Ok(Self(path));
        }
        Err(ValueError {
            allowed: "an absolute path without `..` and control characters",
            found: path.into_string(),
        })
    }

    /// For defaults, which a test proves to be right.
    pub(crate) fn constant(path: &str) -> Self {
        Self(path.into())
    }
}

impl Deref for AbsolutePath {
    type Target = Utf8Path;

    fn deref(&self) -> &Utf8Path {
        &self.0
    }
}

impl AsRef<Utf8Path> for AbsolutePath {
    fn as_ref(&self) -> &Utf8Path {
        &self.0
    }
}

impl AsRef<std::path::Path> for AbsolutePath {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_std_path()
    }
}

impl From<AbsolutePath> for Utf8PathBuf {
    fn from(path: AbsolutePath) -> Self {
        path.0
    }
}

impl fmt::Debug for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for AbsolutePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for AbsolutePath {
    fn schema_name() -> Cow<'static, str> {
        "AbsolutePath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "absolute path", "pattern": "^/" })
    }
}

/// `http` or `https`, a host, perhaps a port and a path; nothing else.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// Takes a URL. A slash at its end is dropped.
    ///
    /// # Errors
    ///
    /// Another scheme, no host, or a user, password, query or fragment in it.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        let usable = Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        if usable {
            return Ok(Self(text.trim_end_matches('/').to_owned()));
        }
        Err(ValueError {
            allowed: "`http://` or `https://`, a host, perhaps `:port` and a path, and nothing else",
            found: text.to_owned(),
        })
    }

    /// For defaults, which a test proves to be right.
    pub(crate) fn constant(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for BaseUrl {
    fn schema_name() -> Cow<'static, str> {
        "BaseUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uri", "pattern": "^https?://" })
    }
}

/// A capability by its name in capabilities(7), such as `CAP_NET_ADMIN`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Capability(String);

impl Capability {
    /// Takes a name.
    ///
    /// # Errors
    ///
    /// No such capability.
    pub fn new(name: &str) -> Result<Self, ValueError> {
        if names::CAPABILITIES.contains(&name) {
            return Ok(Self(name.to_owned()));
        }
        Err(ValueError {
            allowed: "a capability by its full name in upper case, such as `CAP_NET_ADMIN` (capabilities(7))",
            found: name.to_owned(),
        })
    }

    /// The name, with `CAP_`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Capability {
    fn schema_name() -> Cow<'static, str> {
        "Capability".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "capability", "enum": names::CAPABILITIES })
    }
}
