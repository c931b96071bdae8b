//! Transient scopes.

use std::fmt;

use async_trait::async_trait;

/// A scope to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeSpec {
    /// Unit name, ends in `.scope`.
    pub name: String,
    /// Unit name of the slice it lives in.
    pub slice: String,
    /// For people, in `systemctl status`.
    pub description: String,
    /// Its first processes, as the host numbers them; at least one.
    pub pids: Vec<u32>,
}

/// A scope could not be made, found or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// systemd cannot be reached.
    #[error("systemd cannot be reached over D-Bus")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A call failed.
    #[error("systemd cannot {doing} {name}")]
    Call {
        /// What was asked.
        doing: &'static str,
        /// The unit.
        name: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The job ended with something else than `done`.
    #[error("systemd's job to {doing} {name} ended with {result}")]
    Job {
        /// What was asked.
        doing: &'static str,
        /// The unit.
        name: String,
        /// `canceled`, `timeout`, `failed`, `dependency` or `skipped`.
        result: String,
    },
    /// systemd did not answer.
    #[error("systemd did not {doing} {name} within {seconds} s")]
    Deadline {
        /// What was asked.
        doing: &'static str,
        /// The unit.
        name: String,
        /// How long it had.
        seconds: u64,
    },
}

impl ScopeError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            // systemd restarts its bus connection on daemon-reexec; jobs get cancelled on shutdown or overload.
            Self::Connect(_) | Self::Job { .. } | Self::Deadline { .. } => true,
            Self::Call { .. } => false,
        }
    }
}

/// Makes and ends transient scope units.
#[async_trait]
pub trait ScopeManager: Send + Sync + fmt::Debug {
    /// Makes the scope (delegated: `Delegate=yes`) and moves its processes there; waits until that is done.
    ///
    /// A failed unit of the same name, left by a crash, is cleared first.
    async fn start_scope(&self, spec: &ScopeSpec) -> Result<(), ScopeError>;

    /// Ends the scope and everything in it, and waits. `Ok` when there is none.
    async fn stop_scope(&self, name: &str) -> Result<(), ScopeError>;

    /// Whether systemd knows the unit and it is not dead.
    async fn scope_exists(&self, name: &str) -> Result<bool, ScopeError>;

    /// Names of the live scopes that start with `prefix`.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, ScopeError>;
}
