//! What a simulated Proxmox did in the background, as its logs tell.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

/// Something that Proxmox did in the background.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// When its log was made, which is the first that its process does.
    pub begun: SystemTime,
    /// From then to the last line of its log. The kernel's clock for files has steps of some milliseconds.
    pub took: Duration,
}

/// Tasks of this type that have logs below `directory`, and have ended, in the order of their beginnings.
pub(super) fn ended(directory: &Utf8Path, kind: &str) -> anyhow::Result<Vec<Task>> {
    let mut tasks = Vec::new();
    // As Proxmox keeps logs: in one of 16 directories, by name.
    for below in entries(directory)? {
        for log in entries(&below)? {
            let name = log.file_name().unwrap_or_default();
            if name.split(':').nth(5) == Some(kind) {
                tasks.extend(task(&log)?);
            }
        }
    }
    tasks.sort_by_key(|task: &Task| task.begun);
    Ok(tasks)
}

/// What is in a directory; nothing if there is none.
fn entries(directory: &Utf8Path) -> anyhow::Result<Vec<Utf8PathBuf>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let entries = directory
        .read_dir_utf8()
        .with_context(|| format!("cannot list {directory}"))?;
    Ok(entries
        .flatten()
        .map(camino::Utf8DirEntry::into_path)
        .collect())
}

/// The task that has this log, if it has ended.
fn task(log: &Utf8Path) -> anyhow::Result<Option<Task>> {
    let text = fs::read_to_string(log).with_context(|| format!("cannot read {log}"))?;
    let last = text.lines().next_back().unwrap_or_default();
    if !last.starts_with("TASK ") {
        return Ok(None);
    }
    let metadata = log
        .metadata()
        .with_context(|| format!("cannot examine {log}"))?;
    let Ok(begun) = metadata.created() else {
        return Ok(None);
    };
    let ended = metadata
        .modified()
        .with_context(|| format!("cannot examine {log}"))?;
    let took = ended.duration_since(begun).unwrap_or_default();
    Ok(Some(Task { begun, took }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_told_by_their_logs() {
        let name = format!("nexcage-tests-{}", rand::random::<u64>());
        let directory = Utf8PathBuf::try_from(std::env::temp_dir().join(name)).unwrap();
        fs::create_dir(&directory).unwrap();
        let log = directory.join("log");
        fs::write(&log, "working\n").unwrap();
        let running = task(&log).unwrap();
        let begun = log.metadata().unwrap().created().ok();
        fs::write(&log, "working\nTASK OK\n").unwrap();
        let ended = task(&log).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(running.is_none());
        // Not on every file system.
        assert_eq!(ended.map(|task| task.begun), begun);
    }
}
