//! Why crun or conmon did not do what was asked.

use camino::Utf8PathBuf;
use nexcage_command::CommandError;

/// An operation on a container failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// crun knows no such container.
    #[error("container {id} does not exist")]
    NotFound {
        /// The container.
        id: String,
    },
    /// crun refused or failed; the text is its own.
    #[error("cannot {doing} container {id}: {message}")]
    Refused {
        /// The container.
        id: String,
        /// The crun command.
        doing: &'static str,
        /// What crun said.
        message: String,
    },
    /// crun could not be run, or did not end in time.
    #[error("cannot {doing} container {id}")]
    Command {
        /// The container.
        id: String,
        /// The crun command.
        doing: &'static str,
        /// What went wrong.
        #[source]
        source: CommandError,
    },
    /// A file of the container could not be read, written or removed.
    #[error("container {id}: {path}")]
    File {
        /// The container.
        id: String,
        /// The file.
        path: Utf8PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// What was asked for cannot be done with this container now.
    #[error("container {id}: {reason}")]
    Unable {
        /// The container.
        id: String,
        /// Why not, and what would help.
        reason: String,
    },
}

impl OciError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Command { source, .. } => source.is_retryable(),
            Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::File { .. }
            | Self::Unable { .. } => false,
        }
    }
}
