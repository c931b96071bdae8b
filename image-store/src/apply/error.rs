//! Why a layer was refused.

use std::io;

/// Bytes of an entry's name that errors show.
const NAME_SHOWN: usize = 200;

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The stream failed, or ended early.
    #[error("the tar stream cannot be read")]
    Read(#[source] io::Error),
    /// Not a tar stream, or one with a field nobody can make sense of.
    #[error("the tar stream is malformed at byte {offset}: {reason}")]
    Malformed {
        /// Where the header in question begins.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry that is well-formed, but must not or cannot be made.
    #[error("entry {entry}: {reason}")]
    Refused {
        /// Name of the entry, shortened and escaped.
        entry: String,
        /// Why.
        reason: &'static str,
    },
    /// The layer holds more than [`ApplyLimits`](super::ApplyLimits) allows.
    #[error("entry {entry}: the layer has more than {limit} {what}")]
    Limit {
        /// Name of the entry that is one too many.
        entry: String,
        /// The limit.
        limit: u64,
        /// What it counts: `entries`, `bytes`, `path components`.
        what: &'static str,
    },
    /// The file system refused.
    #[error("entry {entry}: cannot {doing}")]
    Io {
        /// Name of the entry.
        entry: String,
        /// What was tried, as in `create the file`.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl ApplyError {
    /// Whether the same layer may be applied later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Read(source) => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::Interrupted
            ),
            Self::Malformed { .. } | Self::Refused { .. } | Self::Limit { .. } => false,
        }
    }

    pub(super) fn refused(entry: &[u8], reason: &'static str) -> Self {
        Self::Refused {
            entry: shown(entry),
            reason,
        }
    }
}

/// `name` for people: escaped, so that it cannot break a log line, and not longer than a few lines.
pub(super) fn shown(name: &[u8]) -> String {
    let cut = name.len() > NAME_SHOWN;
    let head = name.get(..NAME_SHOWN).unwrap_or(name);
    let mut text = head.escape_ascii().to_string();
    if cut {
        text.push_str("...");
    }
    text
}

/// Turns the kernel's answer into an [`ApplyError`] that says what was tried.
pub(super) trait Doing<T> {
    /// `entry` is the name of the entry being applied, `doing` completes "cannot ...".
    fn doing(self, entry: &[u8], doing: &'static str) -> Result<T, ApplyError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, entry: &[u8], doing: &'static str) -> Result<T, ApplyError> {
        self.map_err(|e| ApplyError::Io {
            entry: shown(entry),
            doing,
            source: e.into(),
        })
    }
}
