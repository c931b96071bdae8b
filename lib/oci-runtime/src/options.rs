//! What is the same for all containers.

use std::time::Duration;

use camino::Utf8PathBuf;
use nexcage_command::Program;

/// Who puts containers into cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupManager {
    /// crun, by `linux.cgroupsPath` below the cgroup v2 mount.
    Cgroupfs,
    /// Nobody but the caller: crun refuses hosts that still mount cgroup v1 controllers.
    Disabled,
}

/// Programs, directories and limits of an [`OciRuntime`](crate::OciRuntime). All paths are absolute.
#[derive(Clone, Debug)]
pub struct OciRuntimeOptions {
    /// crun, 1.8 or newer.
    pub crun: Program,
    /// conmon, 2.1.6 or newer.
    pub conmon: Program,
    /// The program with the hidden subcommand `hybrid` ([`hybrid`](crate::hybrid())): nexcage itself, by
    /// [`Program::myself`]. Called only where crun puts nothing into cgroups.
    pub helper: Program,
    /// `crun --root`: crun's own state, one directory per container. On tmpfs.
    pub root: Utf8PathBuf,
    /// `conmon --exit-dir`: one file per ended container, named by its id. conmon writes a temporary file with a dot in
    /// its name and renames it, so watch for `IN_MOVED_TO` (inotify(7)) of names without one. On tmpfs.
    pub exit_dir: Utf8PathBuf,
    /// One directory per container for what conmon leaves (pid files, OOM mark, links to the cgroups), and `s/` with the
    /// links to attach sockets. On tmpfs, not a parent of any bundle, and with ids of 64 bytes at most 23 bytes long,
    /// because conmon makes sockets in it (unix(7)).
    pub monitor_dir: Utf8PathBuf,
    /// Who puts containers into cgroups.
    pub cgroup_manager: CgroupManager,
    /// Time that each single call of crun or conmon has.
    pub deadline: Duration,
}
