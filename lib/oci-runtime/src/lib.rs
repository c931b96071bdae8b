//! Driving crun and conmon.
//!
//! crun makes an OCI container from a bundle (a directory with `config.json` and a root filesystem) and ends at once.
//! conmon stays with the container: it runs `crun create`, is the parent of the container's first process, writes its
//! output to the log, and in the end its exit code to a file. It daemonizes, so it and the container outlive this process;
//! everything needed to go on after a restart is on disk, under names that follow from the container's id.
//!
//! What is left where ([`OciRuntimeOptions`]): `root/<id>/` is crun's; `monitor_dir/<id>/` has conmon's pid files and
//! OOM mark and links to the cgroups of container and conmon; `monitor_dir/s/<id>` links to the bundle, where conmon has its attach
//! socket and control pipes; `exit_dir/<id>` appears when the container has ended.
//!
//! [`OciRuntime`] is a handle without state but for a counter. There are no tasks and no channels: a call lives as long as
//! its future. Calls for different containers never wait for each other; the caller sees to it that there is
//! one `create`, `start`, `delete` or `forget` at a time per container, while `state`, `kill`, `exec_sync` and the rest
//! may come at any time.
//!
//! Invariants:
//!
//! * Whatever a crash in [`OciRuntime::create`] leaves is found by [`OciRuntime::list`] and removed by
//!   [`OciRuntime::delete`] with force and [`OciRuntime::forget`]. For this `monitor_dir/<id>` is the first thing made and
//!   the last removed.
//! * No process is moved between cgroups, which takes the kernel 7 ms each time: each is made where it belongs.
//! * conmon starts inside a cgroup of its own, so that one that a crash left at work is ended with all it started. It is
//!   not held on a start pipe: when that closes because the holder died, conmon goes on as if it had been let go, so
//!   holding it protects nothing.
//! * Files for crun alone (process of an exec, limits, crun's log) are memory files without names.
//! * A process started by [`OciRuntime::exec_sync`] is in a cgroup of its own below the container's until it ends. A
//!   timeout kills that cgroup, so nothing that it forked escapes and nothing else is hit.
//!
//! Start reading at [`OciRuntime::create`], then [`OciRuntime::exec_sync`].

mod cgroup;
mod conmon;
mod create;
mod error;
mod exec;
mod exit;
mod files;
mod hybrid;
mod lifecycle;
mod log;
mod messages;
mod options;
mod plain;
mod process;
mod runtime;
mod scratch;
#[cfg(test)]
mod testing;

pub use create::CreateContainer;
pub use create::CreateError;
pub use create::Created;
pub use error::OciError;
pub use exec::ExecError;
pub use exec::ExecOutput;
pub use exec::ExecSync;
pub use exit::ExitRecord;
pub use hybrid::hybrid;
pub use lifecycle::State;
pub use lifecycle::Status;
pub use options::CgroupManager;
pub use options::OciRuntimeOptions;
pub use plain::PlainCreation;
pub use runtime::OciRuntime;
