//! Finding and ending the conmon of a container.

use std::io;
use std::time::Duration;

use crate::OciRuntime;
use crate::error::OciError;
use crate::files::Files;
use crate::process::Process;

impl OciRuntime {
    /// Sees to it that no conmon of this container runs, and says whether one did. It gets `patience` to end by itself:
    /// a conmon whose container is dead does, one that has not created it yet does not.
    pub(crate) async fn end_monitor(
        &self,
        id: &str,
        files: &Files,
        patience: Duration,
    ) -> Result<bool, OciError> {
        let failed = |source| OciError::File {
            id: id.to_owned(),
            path: files.monitor.clone(),
            source,
        };
        let found = self.monitors(id, files).await.map_err(failed)?;
        let any = !found.is_empty();
        for process in found {
            process.end(patience).await.map_err(failed)?;
        }
        Ok(any)
    }

    /// All conmon processes of a container: by the pid file, or if a crash came before it was written, by
    /// looking at all processes.
    async fn monitors(&self, id: &str, files: &Files) -> io::Result<Vec<Process>> {
        let cid = format!("--cid={id}");
        let exits = format!("--exit-dir={}", self.options.exit_dir);
        let wanted = move |args: &[&str]| args.contains(&&*cid) && args.contains(&&*exits);
        match tokio::fs::read_to_string(&files.conmon_pid).await {
            Ok(pid) => {
                let pid = pid.trim().parse().ok();
                return Ok(pid
                    .and_then(|pid| Process::find(pid, wanted))
                    .into_iter()
                    .collect());
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        // Made before conmon is started.
        if !tokio::fs::try_exists(&files.monitor).await? {
            return Ok(Vec::new());
        }
        tokio::task::spawn_blocking(move || Process::find_all(wanted)).await?
    }
}
