//! Running one more process in a container and waiting for it.

use std::time::Duration;

use camino::Utf8PathBuf;
use nexcage_command::CommandError;
use oci_spec::runtime::Process;

use crate::OciRuntime;
use crate::error::OciError;

/// A process to run in a container.
#[derive(Clone, Debug)]
pub struct ExecSync {
    /// What to run (`process` of the OCI runtime specification); `terminal` must be false.
    pub process: Process,
    /// Time it has; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Bytes kept of each output stream; what comes after is read and thrown away.
    pub output_limit: usize,
    /// The container's own cgroup v2 directory. The process runs in a sub-cgroup of it while the call lasts, so that a
    /// timeout ends all of its descendants and nothing else.
    pub container_cgroup: Utf8PathBuf,
}

/// How the process ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit code; 128 and the signal's number if a signal ended it.
    pub exit_code: i32,
}

/// A process did not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// There is no such container, or it does not run.
    #[error("container {id} does not run")]
    NotRunning {
        /// The container.
        id: String,
    },
    /// It was not started; the text is crun's.
    #[error("cannot exec in container {id}: {message}")]
    Start {
        /// The container.
        id: String,
        /// What crun said.
        message: String,
    },
    /// It was killed because its time was up.
    #[error("the process in container {id} did not end within {} s and was killed", timeout.as_secs_f32())]
    Timeout {
        /// The container.
        id: String,
        /// The time it had.
        timeout: Duration,
    },
    /// crun could not be run.
    #[error("cannot exec in container {id}")]
    Command {
        /// The container.
        id: String,
        /// What went wrong.
        #[source]
        source: CommandError,
    },
    /// A step around it failed.
    #[error("cannot exec in container {id}")]
    Step {
        /// The container.
        id: String,
        /// What went wrong.
        #[source]
        source: OciError,
    },
}

impl ExecError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotRunning { .. } | Self::Start { .. } | Self::Timeout { .. } => false,
            Self::Command { source, .. } => source.is_retryable(),
            Self::Step { source, .. } => source.is_retryable(),
        }
    }
}

impl OciRuntime {
    /// Runs a process in a running container and waits for its end. A background process that it leaves
    /// goes on running.
    ///
    /// # Errors
    ///
    /// An [`ExecError`] of any kind. Dropping the future kills the process and its descendants, as a timeout does.
    pub async fn exec_sync(&self, id: &str, exec: &ExecSync) -> Result<ExecOutput, ExecError> {
        todo!("{id} {exec:?}")
    }
}
