//! Opening a container's log anew.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::Duration;

use camino::Utf8Path;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::OciRuntime;
use crate::error::OciError;

/// Message type 2 of conmon's control pipe, "reopen logs"; it wants three numbers in all.
const REOPEN: &[u8] = b"2 0 0\n";

/// How often the new file is looked for.
const INTERVAL: Duration = Duration::from_millis(2);

impl OciRuntime {
    /// Makes conmon open the log anew after somebody renamed it; returns when the new file exists. `Ok` at once if
    /// conmon still writes to a file of that name: nothing was renamed, and conmon would throw its content away.
    ///
    /// # Errors
    ///
    /// [`OciError::Unable`] if the container's conmon is gone or does not answer in time, [`OciError::File`] if the
    /// log's directory or the control pipe cannot be used. No log file is made then.
    pub async fn reopen_log(
        &self,
        id: &str,
        bundle: &Utf8Path,
        log_path: &Utf8Path,
    ) -> Result<(), OciError> {
        let failed = |path: &Utf8Path, source| OciError::File {
            id: id.to_owned(),
            path: path.to_owned(),
            source,
        };
        let files = self.files(id)?;
        // conmon ends itself if it cannot open the log, and the container loses its output.
        let directory = log_path.parent().unwrap_or(Utf8Path::new("/"));
        match tokio::fs::metadata(directory).await {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(failed(directory, io::ErrorKind::NotADirectory.into())),
            Err(e) => return Err(failed(directory, e)),
        }
        let before = file_number(log_path)
            .await
            .map_err(|e| failed(log_path, e))?;
        if before.is_some() && writes_to(&files.conmon_pid, before).await {
            return Ok(());
        }
        let control = bundle.join("ctl");
        match send(&control) {
            Ok(()) => {}
            Err(e) if is_without_reader(&e) => {
                return Err(OciError::Unable {
                    id: id.to_owned(),
                    reason: "it does not run, so nothing writes its log".to_owned(),
                });
            }
            Err(e) => return Err(failed(&control, e)),
        }
        let renamed = async {
            loop {
                let now = file_number(log_path).await?;
                if now.is_some() && now != before {
                    return io::Result::Ok(());
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        match tokio::time::timeout(self.options.deadline, renamed).await {
            Ok(done) => done.map_err(|e| failed(log_path, e)),
            Err(_) => Err(OciError::Unable {
                id: id.to_owned(),
                reason: format!(
                    "conmon did not reopen {log_path} within {} s",
                    self.options.deadline.as_secs_f32()
                ),
            }),
        }
    }
}

/// Device and inode, `None` if there is no file.
async fn file_number(path: &Utf8Path) -> io::Result<Option<(u64, u64)>> {
    match tokio::fs::metadata(path).await {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether the process in this pid file has that file open.
async fn writes_to(pid_file: &Utf8Path, file: Option<(u64, u64)>) -> bool {
    let pid_file = pid_file.to_owned();
    let look = move || -> io::Result<bool> {
        let pid = std::fs::read_to_string(pid_file)?;
        for entry in std::fs::read_dir(format!("/proc/{}/fd", pid.trim()))? {
            let open = std::fs::metadata(entry?.path()).map(|meta| (meta.dev(), meta.ino()));
            if open.ok() == file {
                return Ok(true);
            }
        }
        Ok(false)
    };
    matches!(tokio::task::spawn_blocking(look).await, Ok(Ok(true)))
}

/// Writes to the pipe without ever waiting for a reader: opening fails with ENXIO if there is none (fifo(7)).
fn send(control: &Utf8Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(control)?
        .write_all(REOPEN)
}

fn is_without_reader(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(Errno::NXIO.raw_os_error())
}
