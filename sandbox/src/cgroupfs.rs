//! Operations on directories of the cgroup file systems. All of them block; see cgroups(7) and the kernel's
//! `admin-guide/cgroup-v2.rst`.

use std::io;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process};

/// Why the cgroups of a pod could not be made or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// No cgroup v2 tree is mounted.
    #[error(
        "no cgroup v2 tree is mounted below /sys/fs/cgroup; boot without systemd.unified_cgroup_hierarchy=0, or \
         mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
    )]
    NotMounted,
    /// The parent that kubelet names cannot be one.
    #[error("cgroup_parent {parent:?} cannot be used: {reason}")]
    Parent {
        /// The parent as given.
        parent: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A cgroup's controllers cannot be given to its children.
    #[error(
        "the {controller} controller cannot be enabled in {path}/cgroup.subtree_control; processes directly in that \
         cgroup must move to a cgroup below it"
    )]
    Controller {
        /// Where.
        path: Utf8PathBuf,
        /// Which.
        controller: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Processes do not end, or somebody keeps starting new ones.
    #[error("the cgroup {path} does not get empty; processes {pids:?} are still in it")]
    Busy {
        /// Where.
        path: Utf8PathBuf,
        /// Who, as the host numbers them.
        pids: Vec<u32>,
    },
    /// A file of the tree could not be read, written, made or removed.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: Utf8PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// systemd did not do what it was asked.
    #[error("the pod's scope cannot be made or ended")]
    Scope(#[source] nexcage_systemd::ScopeError),
}

impl CgroupError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Scope(source) => source.is_retryable(),
            Self::NotMounted | Self::Parent { .. } | Self::Controller { .. } | Self::Io { .. } => {
                false
            }
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// Controllers without which limits of containers do not work: failing to enable one of these is an error.
const NEEDED: &[&str] = &["cpu", "memory", "pids"];

/// Waits this long between two looks, at least and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Makes `path`, whose parents exist. `Ok` when it is there.
pub(crate) fn make(path: &Utf8Path) -> Result<(), CgroupError> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::io("make the cgroup", path)(e))
        }
        _ => Ok(()),
    }
}

/// Moves a process; with it all its threads.
pub(crate) fn enter(cgroup: &Utf8Path, pid: u32) -> Result<(), CgroupError> {
    let procs = cgroup.join("cgroup.procs");
    write(&procs, &pid.to_string()).map_err(CgroupError::io("move a process to", cgroup))
}

/// Writes a control file, which exists.
pub(crate) fn write(path: &Utf8Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

/// Enables for the children of `cgroup` all controllers that it has itself.
pub(crate) fn enable_controllers(cgroup: &Utf8Path) -> Result<(), CgroupError> {
    let words = |file: &str| -> Result<Vec<String>, CgroupError> {
        let path = cgroup.join(file);
        let text =
            std::fs::read_to_string(&path).map_err(CgroupError::io("read", path.as_path()))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let enabled = words("cgroup.subtree_control")?;
    for controller in words("cgroup.controllers")? {
        if enabled.contains(&controller) {
            continue;
        }
        let control = cgroup.join("cgroup.subtree_control");
        let Err(source) = write(&control, &format!("+{controller}")) else {
            continue;
        };
        if NEEDED.contains(&controller.as_str()) {
            return Err(CgroupError::Controller {
                path: cgroup.to_owned(),
                controller,
                source,
            });
        }
        tracing::debug!(%cgroup, %controller, error = %source, "controller not enabled");
    }
    Ok(())
}

/// Processes directly in a cgroup; none if it does not exist.
pub(crate) fn processes(cgroup: &Utf8Path) -> Vec<u32> {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Processes in a cgroup and below it.
pub(crate) fn all_processes(cgroup: &Utf8Path) -> Vec<u32> {
    let mut pids = processes(cgroup);
    for child in children(cgroup) {
        pids.extend(all_processes(&child));
    }
    pids
}

/// Cgroups directly below; none if it does not exist.
pub(crate) fn children(cgroup: &Utf8Path) -> Vec<Utf8PathBuf> {
    let entries = cgroup.read_dir_utf8().into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.into_path())
        .collect()
}

/// Whether there is a process in it or below it; not if it does not exist.
pub(crate) fn is_populated(cgroup: &Utf8Path) -> bool {
    match std::fs::read_to_string(cgroup.join("cgroup.events")) {
        Ok(events) => events.lines().any(|line| line == "populated 1"),
        // Gone, or cgroup v1.
        Err(_) => !all_processes(cgroup).is_empty(),
    }
}

/// Sends SIGKILL to every process in it and below it.
pub(crate) fn kill(cgroup: &Utf8Path) -> Result<(), CgroupError> {
    match write(&cgroup.join("cgroup.kill"), "1") {
        Ok(()) => Ok(()),
        // Before Linux 5.14, in cgroup v1, or no such cgroup (then there are no processes).
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let pids = all_processes(cgroup).into_iter();
            for pid in pids.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
                // It may have ended meanwhile; whether all are gone is checked afterwards.
                let _ = kill_process(pid, Signal::KILL);
            }
            Ok(())
        }
        Err(e) => Err(CgroupError::io("kill everything in", cgroup)(e)),
    }
}

/// Waits until `done`, looking every few milliseconds; false when `deadline` has passed.
pub(crate) fn wait_until(deadline: Duration, mut done: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if done() {
            return true;
        }
        let elapsed = begun.elapsed();
        if elapsed >= deadline {
            return false;
        }
        // Not much longer than it has taken already: a pod's end waits for this.
        std::thread::park_timeout((elapsed / 16).clamp(PAUSES.0, PAUSES.1));
    }
}

/// Kills everything in it and below it, again and again until nothing is left.
pub(crate) fn kill_and_wait(cgroup: &Utf8Path, deadline: Duration) -> Result<(), CgroupError> {
    let mut result = Ok(());
    let empty = wait_until(deadline, || {
        if !is_populated(cgroup) {
            return true;
        }
        // Again each time: without cgroup.kill a process may have forked meanwhile.
        result = kill(cgroup);
        false
    });
    if empty {
        return Ok(());
    }
    result?;
    Err(CgroupError::Busy {
        path: cgroup.to_owned(),
        pids: all_processes(cgroup),
    })
}

/// Removes the tree of cgroups, bottom up, trying again while the kernel still holds one. `Ok` when it is not there.
pub(crate) fn remove(cgroup: &Utf8Path, deadline: Duration) -> Result<(), CgroupError> {
    let mut result = Ok(());
    let removed = wait_until(deadline, || {
        result = remove_once(cgroup);
        !matches!(&result, Err(e) if e.kind() == io::ErrorKind::ResourceBusy)
    });
    match result {
        Ok(()) => Ok(()),
        Err(_) if !removed => Err(CgroupError::Busy {
            path: cgroup.to_owned(),
            pids: all_processes(cgroup),
        }),
        Err(e) => Err(CgroupError::io("remove the cgroup", cgroup)(e)),
    }
}

fn remove_once(cgroup: &Utf8Path) -> io::Result<()> {
    for child in children(cgroup) {
        remove_once(&child)?;
    }
    match std::fs::remove_dir(cgroup) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_already_enabled_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::write(cgroup.join("cgroup.controllers"), "cpu memory rdma\n").unwrap();
        std::fs::write(cgroup.join("cgroup.subtree_control"), "cpu rdma\n").unwrap();
        enable_controllers(cgroup).unwrap();
        // A control file takes each write as a command; this plain file shows the last one over its old text.
        let written = std::fs::read_to_string(cgroup.join("cgroup.subtree_control")).unwrap();
        assert!(written.starts_with("+memory"), "{written}");
    }

    #[test]
    fn what_is_not_there_is_empty_and_removed() {
        let none = Utf8Path::new("/sys/fs/cgroup/nxtsb-no-such-cgroup");
        assert!(!is_populated(none));
        kill_and_wait(none, Duration::ZERO).unwrap();
        remove(none, Duration::ZERO).unwrap();
    }
}
