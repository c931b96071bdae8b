//! Memory, from /proc.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Context as _;

use crate::process::{self, Process};

/// Inits of sandboxes: children of a pod's processes that belong to the runtime and not to the app.
const INITS: [&str; 2] = ["catatonit", "pause"];

/// One number of `/proc/<pid>/status`, such as `VmRSS`, in bytes.
pub(crate) fn status(pid: u32, key: &str) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    kilobytes(&text, key).with_context(|| format!("{file} has no {key}"))
}

/// Lets `VmHWM`, the highest `VmRSS` ever, begin anew (proc_pid_clear_refs(5)).
pub(crate) fn reset_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak of a process")
}

/// What a runtime keeps in memory for one pod: bytes that it shares with nobody, by program.
pub(crate) fn of_pod(
    processes: &[Process],
    marks: &[String],
) -> anyhow::Result<Vec<(String, u64)>> {
    let marked = |process: &&Process| marks.iter().any(|mark| process.line.contains(mark));
    let own: Vec<&Process> = processes.iter().filter(marked).collect();
    let pids: BTreeSet<u32> = own.iter().map(|process| process.pid).collect();
    let inits = processes
        .iter()
        .filter(|process| pids.contains(&process.parent) && INITS.contains(&process.name.as_str()));
    own.iter()
        .copied()
        .chain(inits)
        .map(|process| Ok((process.name.clone(), private(process.pid)?)))
        .collect()
}

/// All processes, once for many pods.
pub(crate) fn processes() -> Vec<Process> {
    process::all()
}

fn private(pid: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let keys = ["Private_Clean", "Private_Dirty", "Private_Hugetlb"];
    Ok(keys.iter().filter_map(|key| kilobytes(&text, key)).sum())
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let number = line.trim().strip_suffix(" kB")?;
    number.parse::<u64>().ok().map(|number| number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let text = "VmRSSx:\t 1 kB\nVmRSS:\t  12 kB\n";
        assert_eq!(kilobytes(text, "VmRSS"), Some(12 * 1024));
        assert_eq!(kilobytes(text, "VmHWM"), None);
    }
}
