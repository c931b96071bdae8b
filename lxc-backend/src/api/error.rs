//! Why Proxmox did not do what was asked.

use std::fmt;
use std::time::Duration;

/// A failed request or task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PveError {
    /// There is no such container, task or node.
    #[error("Proxmox cannot {doing}: {message}")]
    NotFound {
        /// What was asked for, as an imperative.
        doing: String,
        /// Proxmox's words.
        message: String,
    },
    /// HTTP 401: the token is wrong, expired or of another realm.
    #[error("Proxmox does not accept the API token: {message}; check proxmox.token_file")]
    Unauthorized {
        /// Proxmox's words.
        message: String,
    },
    /// HTTP 403: the token lacks a privilege.
    #[error("the API token may not {doing}: {message}")]
    Forbidden {
        /// What was asked for, as an imperative.
        doing: String,
        /// Proxmox's words; they name the path and the privilege, as in `Permission check failed (/vms/100, VM.PowerMgmt)`.
        message: String,
    },
    /// Somebody else works on the container: Proxmox waits ten seconds for its lock.
    #[error("Proxmox cannot {doing} now: {message}")]
    Locked {
        /// What was asked for, as an imperative.
        doing: String,
        /// Proxmox's words.
        message: String,
    },
    /// The cluster has no quorum: nothing can be written.
    #[error("the Proxmox cluster has no quorum: {message}")]
    NoQuorum {
        /// Proxmox's words.
        message: String,
    },
    /// The request is refused for another reason.
    #[error("Proxmox refuses to {doing} (HTTP {status}): {message}")]
    Refused {
        /// What was asked for, as an imperative.
        doing: String,
        /// The HTTP status.
        status: u16,
        /// Proxmox's words, with the parameters it names.
        message: String,
    },
    /// A task ended badly.
    #[error("the Proxmox task {upid} failed: {exit_status}{}", Tail(log))]
    Task {
        /// The task.
        upid: String,
        /// Its exit status: what Proxmox shows in the task list.
        exit_status: String,
        /// The last lines of its log, which say more, if they could be had.
        log: Vec<String>,
    },
    /// No answer, or none that can be understood.
    #[error("the Proxmox API at {url} cannot be used to {doing}")]
    Unreachable {
        /// The API server.
        url: String,
        /// What was asked for, as an imperative.
        doing: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long. A task may go on.
    #[error("Proxmox did not {doing} within {} s", limit.as_secs())]
    Deadline {
        /// What was asked for, as an imperative.
        doing: String,
        /// How long it had.
        limit: Duration,
    },
    /// The token or the certificate authority cannot be read, or is no such thing.
    #[error("{what} cannot be used")]
    Setup {
        /// The file and the configuration's key.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PveError {
    /// The path and the privilege, or several with `|` between them, that the token lacks.
    pub fn missing_privilege(&self) -> Option<(&str, &str)> {
        let Self::Forbidden { message, .. } = self else {
            return None;
        };
        let (_, rest) = message.split_once("Permission check failed (")?;
        let (path, privileges) = rest.split_once(')')?.0.split_once(", ")?;
        path.starts_with('/').then_some((path, privileges))
    }

    /// Whether the same request may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Locked { .. }
            | Self::NoQuorum { .. }
            | Self::Unreachable { .. }
            | Self::Deadline { .. } => true,
            Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::Refused { .. }
            | Self::Task { .. }
            | Self::Setup { .. } => false,
        }
    }
}

/// Lines of a log, after what they explain.
struct Tail<'a>(&'a [String]);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.0.join("; "))
    }
}
