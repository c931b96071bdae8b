//! Running one more process in a container and waiting for it.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nexcage_command::{Command, CommandError};
use oci_spec::runtime::Process;

use crate::cgroup::ExecCgroup;
use crate::error::OciError;
use crate::files::follow;
use crate::lifecycle::Status;
use crate::options::CgroupManager;
use crate::runtime::memory_file;
use crate::{OciRuntime, messages, scratch};

/// How long output is read after the process has ended while a background process of it holds the streams open.
/// What the process itself wrote is in the pipes by then.
const LINGER: Duration = Duration::from_millis(100);

/// Time crun has to reap a process that was killed because its time was up.
const REAP: Duration = Duration::from_secs(2);

/// A process to run in a container.
#[derive(Clone, Debug)]
pub struct ExecSync {
    /// What to run (`process` of the OCI runtime specification); `terminal` must be false.
    pub process: Process,
    /// Time it has; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Bytes kept of each output stream; what comes after is read and thrown away.
    pub output_limit: usize,
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
    /// Runs a process in a running container that [`create`](Self::create) made and waits for its end. It runs in a
    /// sub-cgroup of the container's, so that a timeout ends all of its descendants and nothing else; a background
    /// process that it leaves when it ends by itself goes on running.
    ///
    /// A file that may be executed but that the kernel then refuses ("Exec format error") is [`ExecError::Start`] with crun
    /// 1.8; crun 1.21 makes it exit code 1 and a line on standard error.
    ///
    /// # Errors
    ///
    /// An [`ExecError`] of any kind. Dropping the future kills the process and its descendants, as a timeout does.
    pub async fn exec_sync(&self, id: &str, exec: &ExecSync) -> Result<ExecOutput, ExecError> {
        let step = |source| ExecError::Step {
            id: id.to_owned(),
            source,
        };
        if exec.process.terminal() == Some(true) {
            return Err(step(OciError::Unable {
                id: id.to_owned(),
                reason: "process.terminal must be false where nobody attaches to it".to_owned(),
            }));
        }
        let cgroup = self.exec_cgroup(id).await?;
        let in_memory = |source| {
            step(OciError::File {
                id: id.to_owned(),
                path: "memfd".into(),
                source,
            })
        };
        let process = serde_json::to_vec(&exec.process).map_err(|e| in_memory(e.into()))?;
        let process = memory_file(&process).map_err(in_memory)?;
        let log = memory_file(b"").map_err(in_memory)?;
        let crun_log = log.try_clone().map_err(in_memory)?;

        let command = self.exec_command(id, exec.output_limit, &cgroup, process, crun_log);
        let mut running = std::pin::pin!(command.run_any_status());
        let ended = match exec.timeout {
            None => Ok(running.as_mut().await),
            Some(timeout) => tokio::time::timeout(timeout, running.as_mut())
                .await
                .map_err(|_| timeout),
        };
        let output = match ended {
            Ok(Ok(output)) => output,
            Ok(Err(source)) => {
                cgroup.end().await.map_err(in_cgroup(id))?;
                return Err(ExecError::Command {
                    id: id.to_owned(),
                    source,
                });
            }
            Err(timeout) => {
                // crun is spared at first: it reaps the process. Without it that would become a child of the container's
                // init, and many an init never reaps: a zombie for each failed probe.
                let spared = cgroup.kill_inside().await;
                spared.map_err(in_cgroup(id))?;
                let _ = tokio::time::timeout(REAP, running.as_mut()).await;
                cgroup.end().await.map_err(in_cgroup(id))?;
                return Err(ExecError::Timeout {
                    id: id.to_owned(),
                    timeout,
                });
            }
        };
        if let Err(error) = cgroup.release().await {
            // The answer is there; what is left is an extra cgroup until the container is deleted.
            tracing::warn!(container = id, %error, "cannot remove the cgroup of an exec");
        }
        if let Some(message) = messages::logged_errors(log).map_err(in_memory)? {
            return Err(self.not_started(id, message).await);
        }
        Ok(ExecOutput {
            stdout: output.stdout,
            stderr: output.stderr,
            exit_code: exit_code(output.status),
        })
    }

    /// A cgroup for one exec in the container's.
    async fn exec_cgroup(&self, id: &str) -> Result<ExecCgroup, ExecError> {
        let files = self.files(id).map_err(|source| ExecError::Step {
            id: id.to_owned(),
            source,
        })?;
        let number = self.execs.fetch_add(1, Ordering::Relaxed);
        let made = match follow(&files.cgroup).await {
            Ok(container) => ExecCgroup::make(container, number),
            Err(e) => Err(e),
        };
        made.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => ExecError::NotRunning { id: id.to_owned() },
            _ => in_cgroup(id)(e),
        })
    }

    /// `crun exec` with everything it reads and writes in files without names.
    fn exec_command(
        &self,
        id: &str,
        output_limit: usize,
        cgroup: &ExecCgroup,
        process: OwnedFd,
        log: OwnedFd,
    ) -> Command {
        // The caller keeps the time: at its end there is more to do than to kill crun.
        let command = Command::new(&self.options.crun, Duration::MAX)
            .args(crate::runtime::global_args(&self.options))
            .env(
                scratch::VARIABLE,
                self.options.monitor_dir.join(id).as_str(),
            )
            .args(["--log=/proc/self/fd/4", "--log-format=json", "exec"])
            .arg("--process=/proc/self/fd/3");
        let command = match self.options.cgroup_manager {
            CgroupManager::Cgroupfs => command.arg(format!("--cgroup={}", cgroup.name())),
            // crun changes no cgroups then, so the process stays in that of crun.
            CgroupManager::Disabled => command.cgroup(cgroup.path()),
        };
        command
            .arg(id)
            .file(process, 3)
            .file(log, 4)
            .output_limit(output_limit)
            .linger(LINGER)
    }

    /// crun's error, or what is behind it.
    async fn not_started(&self, id: &str, message: String) -> ExecError {
        match self.state(id).await {
            Ok(state) if state.status != Status::Stopped => ExecError::Start {
                id: id.to_owned(),
                message,
            },
            Ok(_) | Err(OciError::NotFound { .. }) => ExecError::NotRunning { id: id.to_owned() },
            Err(source) => ExecError::Step {
                id: id.to_owned(),
                source,
            },
        }
    }
}

fn in_cgroup(id: &str) -> impl Fn(std::io::Error) -> ExecError {
    let id = id.to_owned();
    move |source| ExecError::Step {
        id: id.clone(),
        source: OciError::File {
            id: id.clone(),
            path: "cgroup of an exec".into(),
            source,
        },
    }
}

/// crun ends with the code of the process; it is itself killed together with the container.
fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
