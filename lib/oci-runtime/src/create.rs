//! Creating a container under conmon.

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::CommandError;

use crate::OciRuntime;
use crate::error::OciError;

/// A container to create. Its bundle has `config.json` and the root filesystem.
#[derive(Clone, Debug)]
pub struct CreateContainer {
    /// 64 hex digits.
    pub id: String,
    /// The OCI bundle. conmon puts its control pipes and the attach socket there.
    pub bundle: Utf8PathBuf,
    /// Log in the CRI format. It exists when `create` returns; its directory must exist before.
    pub log_path: Utf8PathBuf,
    /// Give it a pseudo terminal (`process.terminal` of the bundle must say the same).
    pub terminal: bool,
    /// Keep standard input open for attaching clients; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Close standard input when the first attached client goes.
    pub stdin_once: bool,
    /// Cgroup v2 directory that conmon runs in.
    pub monitor_cgroup: Option<Utf8PathBuf>,
    /// Cgroup v2 directory that the created process is moved to before it is started. Only for
    /// [`CgroupManager::Disabled`](crate::CgroupManager::Disabled); otherwise crun does it.
    pub container_cgroup: Option<Utf8PathBuf>,
}

/// A created container: its process waits for `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its first process, as the host numbers it.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks from boot to its start. With `pid` it names the process for good.
    pub start_time: u64,
    /// Its conmon.
    pub conmon_pid: u32,
}

/// A container was not created, and nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// crun refused; the text is its own.
    #[error("cannot create container {id}: {message}")]
    Refused {
        /// The container.
        id: String,
        /// What crun said.
        message: String,
    },
    /// conmon could not be run, or did not answer in time.
    #[error("cannot start the monitor of container {id}")]
    Monitor {
        /// The container.
        id: String,
        /// What went wrong.
        #[source]
        source: CommandError,
    },
    /// A step around it failed.
    #[error("cannot create container {id}")]
    Step {
        /// The container.
        id: String,
        /// What went wrong.
        #[source]
        source: OciError,
    },
}

impl CreateError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { .. } => false,
            Self::Monitor { source, .. } => source.is_retryable(),
            Self::Step { source, .. } => source.is_retryable(),
        }
    }
}

impl OciRuntime {
    /// Creates a container under a conmon of its own, which outlives this process.
    ///
    /// When it fails or the future is dropped, `delete(id, true)` and `forget` remove all that may be left; on failure
    /// that has been done already.
    ///
    /// # Errors
    ///
    /// A [`CreateError`] of any kind.
    pub async fn create(&self, container: &CreateContainer) -> Result<Created, CreateError> {
        todo!("{container:?}")
    }

    /// Creates a container without conmon: its standard streams are `/dev/null`, nothing keeps its exit code.
    /// Writes its process id to `pid_file` and returns it.
    ///
    /// # Errors
    ///
    /// [`OciError::Refused`] or [`OciError::Command`].
    pub async fn create_plain(
        &self,
        id: &str,
        bundle: &Utf8Path,
        pid_file: &Utf8Path,
    ) -> Result<u32, OciError> {
        todo!("{id} {bundle} {pid_file}")
    }
}
