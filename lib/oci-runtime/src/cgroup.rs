//! The few things done to cgroup v2 directories (cgroups(7)).

use std::io;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process};
use tokio::fs;

/// Time that killed processes have to leave a cgroup.
const DYING: Duration = Duration::from_secs(5);

/// How often an emptying cgroup is looked at.
const INTERVAL: Duration = Duration::from_millis(2);

/// Moves a process.
pub(crate) async fn enter(directory: &Utf8Path, pid: u32) -> io::Result<()> {
    fs::write(directory.join("cgroup.procs"), pid.to_string()).await
}

/// Kills every process in it and below. `Ok` if there is no such cgroup.
pub(crate) async fn kill(directory: &Utf8Path) -> io::Result<()> {
    absent_is_fine(fs::write(directory.join("cgroup.kill"), "1").await)
}

/// Waits, at most for `patience`, until no process is in it or below, or there is no such cgroup.
pub(crate) async fn wait_until_empty(directory: &Utf8Path, patience: Duration) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match fs::read_to_string(directory.join("cgroup.events")).await {
            Ok(events) if events.lines().any(|line| line == "populated 0") => return Ok(()),
            Err(e) if is_gone(&e) => return Ok(()),
            Err(e) => return Err(e),
            Ok(_) if tokio::time::Instant::now() >= deadline => return Ok(()),
            Ok(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// Sends a signal to every process in it and below. `Ok` if there is no such cgroup.
pub(crate) async fn signal(directory: &Utf8Path, signal: Signal) -> io::Result<()> {
    for group in tree(directory).await? {
        for pid in processes(&group).await? {
            match kill_process(pid, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}

/// Removes it and all below, killing whatever is in it until that succeeds. `Ok` if there is no such cgroup.
///
/// A process that has opened its `cgroup.procs` can no longer enter it afterwards.
pub(crate) async fn destroy(directory: &Utf8Path) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + DYING;
    loop {
        let mut result = Ok(());
        for group in tree(directory).await?.into_iter().rev() {
            result = result.and(absent_is_fine(fs::remove_dir(&group).await));
        }
        match result {
            Err(e) if is_busy(&e) && tokio::time::Instant::now() < deadline => {
                kill(directory).await?;
                tokio::time::sleep(INTERVAL).await;
            }
            result => return result,
        }
    }
}

/// It and all below, parents first; none if there is no such cgroup.
async fn tree(directory: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let directory = directory.to_owned();
    let walk = move || {
        let mut found = vec![directory];
        let mut next = 0;
        while let Some(group) = found.get(next).cloned() {
            next += 1;
            let entries = match group.read_dir_utf8() {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    found.push(entry.into_path());
                }
            }
        }
        Ok(found)
    };
    tokio::task::spawn_blocking(walk).await?
}

async fn processes(directory: &Utf8Path) -> io::Result<Vec<Pid>> {
    let list = match fs::read_to_string(directory.join("cgroup.procs")).await {
        Ok(list) => list,
        // Removed meanwhile.
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    Ok(list
        .lines()
        .filter_map(|line| line.parse().ok().and_then(Pid::from_raw))
        .collect())
}

/// Files of a removed cgroup that are still open answer ENODEV.
fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound
        || e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// It has processes, or a cgroup below it.
fn is_busy(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::ResourceBusy
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if is_gone(&e) => Ok(()),
        result => result,
    }
}

/// A cgroup below a container's own that holds the processes of one exec while it lasts.
#[derive(Debug)]
pub(crate) struct ExecCgroup {
    parent: Utf8PathBuf,
    /// Its name in `parent`.
    name: String,
    /// Cleared once there is nothing left to do on drop.
    armed: bool,
}

impl ExecCgroup {
    /// Kills every process in it that lives in a PID namespace other than ours: those of the container, but not crun.
    pub(crate) async fn kill_inside(&self) -> io::Result<()> {
        let ours = fs::read_link("/proc/self/ns/pid").await?;
        for group in tree(&self.path()).await? {
            for pid in processes(&group).await? {
                let namespace = format!("/proc/{}/ns/pid", pid.as_raw_nonzero());
                match fs::read_link(namespace).await {
                    Ok(theirs) if theirs != ours => {}
                    // crun, or gone already.
                    _ => continue,
                }
                match kill_process(pid, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(())
    }

    /// Makes it. `NotFound` if the container's is gone.
    pub(crate) fn make(parent: Utf8PathBuf, number: u64) -> io::Result<Self> {
        let name = format!("exec-{}-{number}", std::process::id());
        // Not through another thread, which would go on after the caller's future is dropped.
        std::fs::create_dir(parent.join(&name))?;
        Ok(Self {
            parent,
            name,
            armed: true,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> Utf8PathBuf {
        self.parent.join(&self.name)
    }

    /// Hands what still runs in it over to the container, and removes it.
    pub(crate) async fn release(mut self) -> io::Result<()> {
        self.armed = false;
        let path = self.path();
        let deadline = tokio::time::Instant::now() + DYING;
        loop {
            match absent_is_fine(fs::remove_dir(&path).await) {
                Err(e) if is_busy(&e) && tokio::time::Instant::now() < deadline => {}
                result => return result,
            }
            for pid in processes(&path).await? {
                // One that ends meanwhile is not an error; one that cannot be moved shows at the deadline.
                let _ = enter(&self.parent, pid.as_raw_nonzero().get().unsigned_abs()).await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Kills what runs in it, and removes it.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        self.armed = false;
        destroy(&self.path()).await
    }
}

impl Drop for ExecCgroup {
    /// The caller went away: what it started must not run on. An empty cgroup that stays until
    /// the container's is removed does no harm.
    fn drop(&mut self) {
        if self.armed {
            let path = self.path();
            let _ = std::fs::write(path.join("cgroup.kill"), "1");
            let _ = std::fs::remove_dir(path);
        }
    }
}
