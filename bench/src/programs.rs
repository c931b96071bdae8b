//! Which programs are started on the machine meanwhile, by the kernel's own account.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use crate::stage;

/// Where tracefs is.
const TRACEFS: &str = "/sys/kernel/tracing";

/// Below [`TRACEFS`] and each of its instances: told of whenever a process becomes another program (execve(2)).
const EVENT: &str = "events/sched/sched_process_exec";

/// Programs by their name, and how often each was started.
pub(crate) type Started = BTreeMap<String, u32>;

/// A trace of the benchmark's own, which ends when it is dropped.
pub(crate) struct Watch {
    instance: Utf8PathBuf,
}

impl Watch {
    /// Begins to watch; none where the kernel cannot tell.
    pub(crate) fn begin() -> anyhow::Result<Option<Self>> {
        let tracefs = Utf8Path::new(TRACEFS);
        if !tracefs.join(EVENT).exists() {
            return Ok(None);
        }
        let instance = tracefs.join("instances").join(stage::NAME);
        if !instance.exists() {
            fs::create_dir(&instance).with_context(|| format!("cannot make {instance}"))?;
        }
        let watch = Self { instance };
        watch.write("trace", "")?;
        watch.write(&format!("{EVENT}/enable"), "1")?;
        Ok(Some(watch))
    }

    /// What was started since it began, or since the last time.
    pub(crate) fn take(&self) -> anyhow::Result<Started> {
        let file = self.instance.join("trace");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        self.write("trace", "")?;
        Ok(started(&text))
    }

    /// Nothing written to `trace` empties it; see the kernel's `Documentation/trace/ftrace.rst`.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let file = self.instance.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {file}"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.instance) {
            eprintln!("cannot remove {}: {error}", self.instance);
        }
    }
}

/// Reads lines such as
/// `zfs-812 [001] ..... 49.2: sched_process_exec: filename=/usr/sbin/zfs pid=812 old_pid=812`.
fn started(trace: &str) -> Started {
    let mut programs = Started::new();
    for line in trace.lines().filter(|line| !line.starts_with('#')) {
        let told = line.split_once(" sched_process_exec: filename=");
        let path = told.and_then(|(_, rest)| rest.rsplit_once(" pid="));
        if let Some((path, _)) = path {
            *programs.entry(name(path).to_owned()).or_default() += 1;
        }
    }
    programs
}

/// The file's name; of a file that has none any more, or is not to be seen, all that there is (crun is `/proc/self/fd/3` when it
/// has made a copy of itself).
fn name(path: &str) -> &str {
    let file = Utf8Path::new(path);
    match file.starts_with("/proc") || file.starts_with("/dev/fd") {
        true => path,
        false => file.file_name().unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_counted_by_name() {
        let trace = "\
# tracer: nop
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
             zfs-812     [001] .....    49.201318: sched_process_exec: filename=/usr/sbin/zfs pid=812 old_pid=812
         odd pid-813     [000] .....    49.301318: sched_process_exec: filename=/opt/odd pid=1 pid=813 old_pid=813
             zfs-814     [001] d..1.    59.201318: sched_process_exec: filename=/usr/sbin/zfs pid=814 old_pid=814
               3-815     [001] .....    59.250000: sched_process_exec: filename=/proc/self/fd/3 pid=815 old_pid=815
             zfs-814     [001] .....    59.300000: sched_process_exit: comm=zfs pid=814 prio=120
";
        let expected = [("/proc/self/fd/3", 1), ("odd pid=1", 1), ("zfs", 2)];
        let expected = expected.map(|(name, times)| (name.to_owned(), times));
        assert_eq!(started(trace), Started::from(expected));
    }
}
