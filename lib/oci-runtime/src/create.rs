//! Creating a container under conmon.

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::{fs, io};

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::{Command, CommandError};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;

use crate::error::OciError;
use crate::files::Files;
use crate::hybrid::create_runtime;
use crate::messages::{self, Answer};
use crate::options::CgroupManager;
use crate::process::Stat;
use crate::{OciRuntime, conmon, scratch};

/// File descriptor of conmon's answer pipe.
const SYNC_PIPE: i32 = 3;

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
    /// Cgroup v2 directory of the pod's monitors; conmon gets one of its own below it, named by the id, which `delete`
    /// removes. With `None` conmon stays in the caller's cgroup, and `delete` cannot end one that a crash leaves.
    pub monitor_cgroup: Option<Utf8PathBuf>,
    /// The container's own cgroup v2 directory. With [`CgroupManager::Cgroupfs`] it is the one that
    /// `linux.cgroupsPath` names and crun makes; with [`CgroupManager::Disabled`] it is made here and crun is started
    /// in it. Removed by `delete`.
    pub container_cgroup: Utf8PathBuf,
}

impl CreateContainer {
    fn conmon_cgroup(&self) -> Option<Utf8PathBuf> {
        self.monitor_cgroup
            .as_ref()
            .map(|group| group.join(&self.id))
    }
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
    /// On failure nothing is left. If the future is dropped or the process dies, `delete(id, true)` and `forget`
    /// remove whatever there is.
    ///
    /// # Errors
    ///
    /// A [`CreateError`] of any kind; if the id is taken, its owner is left alone.
    pub async fn create(&self, container: &CreateContainer) -> Result<Created, CreateError> {
        let step = |source| CreateError::Step {
            id: container.id.clone(),
            source,
        };
        let files = self.files(&container.id).map_err(step)?;
        check_paths(container).map_err(step)?;
        self.claim(&container.id, &files).map_err(step)?;
        let created = self.try_create(container, &files).await;
        if created.is_err() {
            let cleaned = match self.delete(&container.id, true).await {
                Ok(()) => self.forget(&container.id).await,
                Err(e) => Err(e),
            };
            if let Err(error) = cleaned {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(container = container.id, error, "cannot clean up");
            }
        }
        created
    }

    async fn try_create(
        &self,
        container: &CreateContainer,
        files: &Files,
    ) -> Result<Created, CreateError> {
        let id = &container.id;
        let step = |source| CreateError::Step {
            id: id.clone(),
            source,
        };
        self.prepare(container, files).map_err(step)?;
        nexcage_failpoint::hit("oci.prepared");

        let (receiver, sender) = answer_pipe().map_err(|source| {
            step(OciError::File {
                id: id.clone(),
                path: "pipe".into(),
                source,
            })
        })?;
        let command = self.conmon_command(container, files, sender);
        let line = command.line();
        // Ends when conmon has become a daemon.
        let ran = command.run().await;
        ran.map_err(|source| CreateError::Monitor {
            id: id.clone(),
            source,
        })?;
        nexcage_failpoint::hit("oci.conmon-started");

        let pid = self.await_answer(id, line, receiver).await?;
        let created = self.adopt(container, files, pid).await.map_err(step)?;
        nexcage_failpoint::hit("oci.created");
        Ok(created)
    }

    /// Takes the id, or refuses it before anything of its owner is touched.
    fn claim(&self, id: &str, files: &Files) -> Result<(), OciError> {
        let failed = |path: &Utf8Path, source| OciError::File {
            id: id.to_owned(),
            path: path.to_owned(),
            source,
        };
        let parent = &self.options.monitor_dir;
        fs::create_dir_all(parent).map_err(|e| failed(parent, e))?;
        match fs::create_dir(&files.monitor) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(taken(id)),
            Err(e) => Err(failed(&files.monitor, e)),
        }
    }

    /// Makes what conmon and crun want. Quick, since none of it is on a disk, and not through another thread, which would
    /// go on after the caller's future is dropped.
    fn prepare(&self, container: &CreateContainer, files: &Files) -> Result<(), OciError> {
        let id = &container.id;
        let failed = |path: &Utf8Path, source| OciError::File {
            id: id.clone(),
            path: path.to_owned(),
            source,
        };
        for directory in [&files.sockets, &self.options.exit_dir] {
            fs::create_dir_all(directory).map_err(|e| failed(directory, e))?;
        }
        let group = &container.container_cgroup;
        symlink(group, &files.cgroup).map_err(|e| failed(&files.cgroup, e))?;
        if let Some(group) = container.conmon_cgroup() {
            symlink(&group, &files.conmon_cgroup).map_err(|e| failed(&files.conmon_cgroup, e))?;
            fs::create_dir(&group).map_err(|e| failed(&group, e))?;
        }
        if self.options.cgroup_manager == CgroupManager::Disabled {
            fs::create_dir_all(group).map_err(|e| failed(group, e))?;
        }
        Ok(())
    }

    fn conmon_command(
        &self,
        container: &CreateContainer,
        files: &Files,
        sender: OwnedFd,
    ) -> Command {
        let runtime = create_runtime(&self.options, Some(&container.container_cgroup));
        let args = conmon::arguments(
            &self.options,
            files,
            container,
            runtime.program.path(),
            &runtime.args,
        );
        let command = Command::new(&self.options.conmon, self.options.deadline)
            .args(args)
            .env("_OCI_SYNCPIPE", SYNC_PIPE.to_string())
            .env("TMPDIR", files.monitor.as_str())
            .env(scratch::VARIABLE, files.monitor.as_str())
            // conmon leaves its OOM mark where it runs, too.
            .directory(files.monitor.clone())
            .file(sender, SYNC_PIPE);
        match container.conmon_cgroup() {
            Some(group) => command.cgroup(group),
            None => command,
        }
    }

    /// Reads conmon's one line. conmon 2.1.6 never closes the pipe, later ones do.
    async fn await_answer(
        &self,
        id: &str,
        command: String,
        receiver: Receiver,
    ) -> Result<u32, CreateError> {
        let mut line = Vec::new();
        let mut receiver = BufReader::new(receiver);
        let reading = receiver.read_until(b'\n', &mut line);
        let deadline = self.options.deadline;
        let failure = match tokio::time::timeout(deadline, reading).await {
            Ok(Ok(_)) => match messages::answer(&line) {
                Answer::Created(pid) => return Ok(pid),
                Answer::Failed(message) => {
                    return Err(CreateError::Refused {
                        id: id.to_owned(),
                        message,
                    });
                }
            },
            Ok(Err(source)) => CommandError::Io { command, source },
            Err(_) => CommandError::Deadline {
                command,
                deadline,
                stderr: String::new(),
            },
        };
        Err(CreateError::Monitor {
            id: id.to_owned(),
            source: failure,
        })
    }

    /// Notes who the waiting process is.
    async fn adopt(
        &self,
        container: &CreateContainer,
        files: &Files,
        pid: u32,
    ) -> Result<Created, OciError> {
        let id = &container.id;
        let conmon_pid = read_pid(&files.conmon_pid)
            .await
            .map_err(|source| OciError::File {
                id: id.clone(),
                path: files.conmon_pid.clone(),
                source,
            })?;
        let stat = Stat::of(pid).ok_or_else(|| OciError::Unable {
            id: id.clone(),
            reason: format!("its first process {pid} ended before it was started"),
        })?;
        Ok(Created {
            pid,
            start_time: stat.start_time,
            conmon_pid,
        })
    }
}

pub(crate) fn taken(id: &str) -> OciError {
    OciError::Unable {
        id: id.to_owned(),
        reason: "it already exists, or is left from a crash and must be deleted by force and forgotten first"
            .to_owned(),
    }
}

/// A pipe whose reading end this process keeps.
fn answer_pipe() -> io::Result<(Receiver, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Receiver::from_owned_fd(read)?, write))
}

pub(crate) async fn read_pid(path: &Utf8Path) -> io::Result<u32> {
    let text = tokio::fs::read_to_string(path).await?;
    text.trim()
        .parse()
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Refuses paths that conmon would misunderstand.
fn check_paths(container: &CreateContainer) -> Result<(), OciError> {
    let unable = |reason: String| OciError::Unable {
        id: container.id.clone(),
        reason,
    };
    let CreateContainer {
        bundle, log_path, ..
    } = container;
    for path in [bundle, log_path] {
        if !path.is_absolute() {
            return Err(unable(format!("{path} must be an absolute path")));
        }
    }
    // conmon takes what follows as something else and writes to a shorter path.
    if log_path.as_str().contains(':') {
        return Err(unable(format!(
            "the log path {log_path} must not contain a colon"
        )));
    }
    Ok(())
}
