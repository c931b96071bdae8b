//! Putting a child into a cgroup before it runs.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;

use camino::Utf8Path;

/// Lets the child move itself into the cgroup of `directory` between fork and exec, so that neither it nor anything
/// it forks is ever seen elsewhere (cgroups(7): writing 0 to `cgroup.procs` moves the writer).
pub(crate) fn join(command: &mut tokio::process::Command, directory: &Utf8Path) -> io::Result<()> {
    let path = directory.join("cgroup.procs");
    let procs = OpenOptions::new()
        .write(true)
        .open(&path)
        .map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
    // SAFETY: the closure runs between fork and exec in the child. It allocates nothing and takes no lock;
    // write is async-signal-safe (signal-safety(7)).
    unsafe {
        command.pre_exec(
            move || match libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) {
                1 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
    Ok(())
}
