//! What the processes of a cgroup tell, where the cgroup itself does not.

use std::collections::VecDeque;

use camino::{Utf8Path, Utf8PathBuf};

use super::MemoryUsage;

/// Processes in a cgroup and all below it; `None` if it is gone.
pub(crate) fn count(dir: &Utf8Path) -> Option<u64> {
    processes(dir).map(|pids| u64::try_from(pids.len()).unwrap_or(u64::MAX))
}

/// Resident memory of a cgroup's processes, each page counted for every process that maps it.
pub(crate) fn memory(dir: &Utf8Path) -> Option<MemoryUsage> {
    let pages: u64 = processes(dir)?
        .iter()
        .filter_map(|pid| resident_pages(pid))
        .sum();
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let bytes = pages.saturating_mul(page);
    Some(MemoryUsage {
        usage: bytes,
        working_set: bytes,
        rss: bytes,
        ..MemoryUsage::default()
    })
}

fn resident_pages(pid: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

fn processes(dir: &Utf8Path) -> Option<Vec<String>> {
    let mut pids = Vec::new();
    let mut open: VecDeque<Utf8PathBuf> = VecDeque::from([dir.to_owned()]);
    let mut found = false;
    while let Some(dir) = open.pop_front() {
        let Ok(text) = std::fs::read_to_string(dir.join("cgroup.procs")) else {
            continue;
        };
        found = true;
        pids.extend(text.lines().map(str::to_owned));
        let Ok(entries) = dir.read_dir_utf8() else {
            continue;
        };
        let below = entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        open.extend(below.map(|e| e.path().to_owned()));
    }
    found.then_some(pids)
}
