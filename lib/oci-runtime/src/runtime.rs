//! The handle, and how crun is called.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use nexcage_command::{Command, CommandError, Output};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::error::OciError;
use crate::files::Files;
use crate::messages;
use crate::options::{CgroupManager, OciRuntimeOptions};
use crate::scratch;

/// Runs OCI containers by crun under conmon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OciRuntime {
    pub(crate) options: Arc<OciRuntimeOptions>,
    /// Numbers the cgroups of [`exec_sync`](OciRuntime::exec_sync).
    pub(crate) execs: Arc<AtomicU64>,
}

impl OciRuntime {
    /// A runtime with these options. Nothing is touched before the first call.
    pub fn new(options: OciRuntimeOptions) -> Self {
        Self {
            options: Arc::new(options),
            execs: Arc::default(),
        }
    }

    pub(crate) fn files(&self, id: &str) -> Result<Files, OciError> {
        Files::of(&self.options, id)
    }

    /// A call of crun for a container, with its global options.
    pub(crate) fn crun(&self, files: &Files) -> Command {
        // The container's own, or where a start of the daemon looks.
        let directory = match files.monitor.exists() {
            true => &files.monitor,
            false => &self.options.root,
        };
        Command::new(&self.options.crun, self.options.deadline)
            .args(global_args(&self.options))
            .env(scratch::VARIABLE, directory.as_str())
    }

    /// Removes what killed cruns have left outside of their containers' own directories, from which `forget` removes it. To be called from
    /// time to time.
    ///
    /// # Errors
    ///
    /// If crun's directory cannot be read, or something in it not be removed.
    pub async fn tidy(&self) -> std::io::Result<()> {
        scratch::sweep(&self.options.root).await
    }

    /// Runs a crun command on a container and turns its failure into words.
    pub(crate) async fn call(
        &self,
        id: &str,
        doing: &'static str,
        command: Command,
    ) -> Result<Output, OciError> {
        match command.run().await {
            Ok(output) => Ok(output),
            Err(CommandError::Failed { stderr, .. }) => {
                if !self.files(id)?.crun_status.exists() {
                    return Err(OciError::NotFound { id: id.to_owned() });
                }
                Err(OciError::Refused {
                    id: id.to_owned(),
                    doing,
                    message: messages::readable(&stderr),
                })
            }
            Err(source) => Err(OciError::Command {
                id: id.to_owned(),
                doing,
                source,
            }),
        }
    }
}

/// What comes before the command in every call of crun.
pub(crate) fn global_args(options: &OciRuntimeOptions) -> Vec<String> {
    let manager = match options.cgroup_manager {
        CgroupManager::Cgroupfs => "cgroupfs",
        CgroupManager::Disabled => "disabled",
    };
    vec![
        format!("--root={}", options.root),
        format!("--cgroup-manager={manager}"),
    ]
}

/// A file without a name, so that a crash leaves nothing behind.
pub(crate) fn memory_file(content: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("nexcage", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    Ok(file.into())
}
