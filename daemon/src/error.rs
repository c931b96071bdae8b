//! Why an operation on pods, containers or images failed.
//!
//! One type for the whole daemon above the crates below, because all of its errors end at the same edge:
//! `cri::status` maps each kind to its gRPC code.

use std::error::Error;
use std::fmt;

use crate::cri::InvalidField;

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpError {
    /// Nothing has this id or name.
    #[error("{kind} {name:?} does not exist")]
    NotFound { kind: Kind, name: String },
    /// Several things have ids that begin like this.
    #[error("{kind} id {prefix:?} is ambiguous")]
    Ambiguous { kind: Kind, prefix: String },
    /// The request is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// The request makes sense, but not now.
    #[error("{0}")]
    State(String),
    /// What the request is about has ended before it was done.
    #[error("{what} has ended")]
    Ended { what: String, source: BoxError },
    /// It took longer than the caller allowed.
    #[error("{0}")]
    Deadline(String),
    /// Something this needs is not working at the moment.
    #[error("{doing}")]
    Unavailable {
        doing: String,
        source: Option<BoxError>,
    },
    /// A step failed.
    #[error("{doing}")]
    Failed {
        doing: String,
        source: Option<BoxError>,
    },
    /// An image could not be pulled.
    #[error(transparent)]
    Pull(#[from] nexcage_image_store::PullError),
}

/// An error of a crate below.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pod,
    Container,
    Image,
    Checkpoint,
}

impl Kind {
    /// The field of a request that names one.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Pod => "pod_sandbox_id",
            Self::Container => "container_id",
            Self::Image => "image",
            Self::Checkpoint => "checkpoint",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod sandbox",
            Self::Container => "container",
            Self::Image => "image",
            Self::Checkpoint => "checkpoint",
        })
    }
}

impl OpError {
    /// `doing` failed because of `source`.
    pub(crate) fn failed(doing: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Failed {
            doing: doing.into(),
            source: Some(source.into()),
        }
    }

    /// For `map_err`: `doing` failed because of what is passed.
    pub(crate) fn step<E: Into<BoxError>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::failed(doing, source)
    }

    /// `source` because `what` has ended.
    pub(crate) fn ended(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Ended {
            what: what.into(),
            source: source.into(),
        }
    }

    /// No such pod.
    pub(crate) fn no_pod(name: &str) -> Self {
        Self::NotFound {
            kind: Kind::Pod,
            name: name.to_owned(),
        }
    }

    /// Whether a caller that wants something gone can be content.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Whether something failed because a disk, or somebody's share of one, is full.
pub(crate) fn is_out_of_space(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if says_full(error) {
            return true;
        }
        next = error.source();
    }
    false
}

fn says_full(error: &(dyn Error + 'static)) -> bool {
    use nexcage_sqlite::rusqlite::{Error as SqliteError, ErrorCode};
    use std::io::{Error as IoError, ErrorKind};
    if let Some(error) = error.downcast_ref::<IoError>() {
        return matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded
        );
    }
    let Some(SqliteError::SqliteFailure(error, _)) = error.downcast_ref() else {
        return false;
    };
    error.code == ErrorCode::DiskFull
}

impl From<nexcage_sqlite::DatabaseError> for OpError {
    fn from(source: nexcage_sqlite::DatabaseError) -> Self {
        if source.is_retryable() {
            Self::Unavailable {
                doing: "cannot save state".into(),
                source: Some(source.into()),
            }
        } else {
            Self::failed("cannot save state", source)
        }
    }
}

/// Writes an error and everything behind it on one line. What the next error begins with is not said twice: a crate below may
/// name the same operation.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut next = self.0.source();
        while let Some(error) = next {
            let cause = error.to_string();
            if !cause.starts_with(&text) {
                write!(f, "{text}: ")?;
            }
            text = cause;
            next = error.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_shows_every_cause() {
        let e = OpError::failed("cannot do it", std::io::Error::other("disk on fire"));
        assert_eq!(Chain(&e).to_string(), "cannot do it: disk on fire");
    }

    #[test]
    fn nothing_is_said_twice() {
        let cause = OpError::failed("cannot do it: no", std::io::Error::other("disk on fire"));
        let e = OpError::failed("cannot do it", cause);
        assert_eq!(Chain(&e).to_string(), "cannot do it: no: disk on fire");
        let e = OpError::failed("cannot do it", OpError::failed("cannot do it", "why"));
        assert_eq!(Chain(&e).to_string(), "cannot do it: why");
    }

    #[test]
    fn a_full_disk_is_seen_behind_other_errors() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let behind = OpError::failed("a", OpError::failed("b", full()));
        assert!(is_out_of_space(&behind));
        let other = std::io::Error::other("b");
        assert!(!is_out_of_space(&OpError::failed("a", other)));
    }
}
