//! What can be wrong with a configuration file.

use std::fmt;

use camino::Utf8PathBuf;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no such file.
    #[error("configuration file {path} does not exist")]
    NotFound {
        /// The file.
        path: Utf8PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The text is not JSON, or gives a key twice.
    #[error("{origin} is not strict JSON")]
    Syntax {
        /// Where the text is from.
        origin: String,
        /// What the parser said, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// It is JSON, but keys or values in it are refused.
    #[error("{origin} cannot be used:{}", Lines(problems))]
    Invalid {
        /// Where the text is from.
        origin: String,
        /// Everything that is wrong, in the order of the keys' paths.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// Whether loading the same file may succeed later without anybody's help. Never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The key, as `images.registries["docker.io"].mirrors[0]`; `.` is the whole file.
    pub path: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|p| write!(f, "\n  {p}"))
    }
}
