//! Options for unit tests.

use std::time::Duration;

use nexcage_command::Program;

use crate::options::{CgroupManager, OciRuntimeOptions};

/// Options of a host with cgroup v2 only. The programs are any that exist everywhere.
pub(crate) fn options() -> OciRuntimeOptions {
    OciRuntimeOptions {
        crun: Program::at("/bin/true").unwrap(),
        conmon: Program::at("/bin/false").unwrap(),
        helper: Program::at("/bin/sh").unwrap(),
        root: "/run/nexcage/crun".into(),
        exit_dir: "/run/nexcage/exits".into(),
        monitor_dir: "/run/nexcage/monitor".into(),
        cgroup_manager: CgroupManager::Cgroupfs,
        deadline: Duration::from_secs(10),
    }
}
