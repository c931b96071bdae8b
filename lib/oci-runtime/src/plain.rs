//! Creating a container without conmon.

use std::io;
use std::os::fd::OwnedFd;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::{Command, CommandError, Output};

use crate::create::{read_pid, taken};
use crate::error::OciError;
use crate::hybrid::create_runtime;
use crate::runtime::{global_args, memory_file};
use crate::{OciRuntime, messages, scratch};

const DOING: &str = "create";

/// A creation that waits for its command to be run.
#[derive(Debug)]
pub struct PlainCreation {
    id: String,
    pid_file: Utf8PathBuf,
    log: OwnedFd,
}

impl OciRuntime {
    /// What creates a container without conmon: its standard streams are `/dev/null`, nothing keeps its exit code, and where
    /// crun does no cgroups its first process is in that of the command. The caller runs the command, to its end, and hands
    /// what came of it to [`PlainCreation::finish`]. If anything fails then, `delete` with force removes what there is.
    ///
    /// # Errors
    ///
    /// [`OciError::Unable`] if the id is taken.
    pub fn create_plain(
        &self,
        id: &str,
        bundle: &Utf8Path,
        pid_file: &Utf8Path,
    ) -> Result<(Command, PlainCreation), OciError> {
        // crun's own check would come too late: by then a failure could be of either container.
        if self.files(id)?.crun.exists() {
            return Err(taken(id));
        }
        let in_memory = |source| file_failed(id, "memfd".into(), source);
        let log = memory_file(b"").map_err(in_memory)?;
        let crun_log = log.try_clone().map_err(in_memory)?;
        let runtime = create_runtime(&self.options, None);
        let command = Command::new(&runtime.program, self.options.deadline)
            .args(runtime.args)
            .args(global_args(&self.options))
            .args(["--log=/proc/self/fd/3", "--log-format=json", DOING])
            .arg(format!("--bundle={bundle}"))
            .arg(format!("--pid-file={pid_file}"))
            .arg(id)
            // Not in the bundle, which is not ours to tidy.
            .env(scratch::VARIABLE, self.options.root.as_str())
            .file(crun_log, 3)
            // The container's first process inherits them.
            .discard_output();
        let creation = PlainCreation {
            id: id.to_owned(),
            pid_file: pid_file.to_owned(),
            log,
        };
        Ok((command, creation))
    }
}

impl PlainCreation {
    /// The number of the container's first process, which waits for `start` and is also in the pid file.
    ///
    /// # Errors
    ///
    /// [`OciError::Refused`] with crun's words, or [`OciError::Command`].
    pub async fn finish(self, ran: Result<Output, CommandError>) -> Result<u32, OciError> {
        let Self { id, pid_file, log } = self;
        let source = match ran {
            Ok(_) => {
                nexcage_failpoint::hit("oci.created");
                let pid = read_pid(&pid_file).await;
                return pid.map_err(|e| file_failed(&id, &pid_file, e));
            }
            Err(source) => source,
        };
        let said = match source {
            CommandError::Failed { .. } => {
                messages::logged_errors(log).map_err(|e| file_failed(&id, "memfd".into(), e))?
            }
            _ => None,
        };
        Err(match said {
            Some(message) => OciError::Refused {
                id,
                doing: DOING,
                message,
            },
            None => OciError::Command {
                id,
                doing: DOING,
                source,
            },
        })
    }
}

fn file_failed(id: &str, path: &Utf8Path, source: io::Error) -> OciError {
    OciError::File {
        id: id.to_owned(),
        path: path.to_owned(),
        source,
    }
}
