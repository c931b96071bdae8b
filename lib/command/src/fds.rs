//! Handing open files to a child under chosen numbers.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Lets the child have each file under its number, and no other of our files (they are
/// all opened close-on-exec).
pub(crate) fn inherit(command: &mut tokio::process::Command, files: Vec<(OwnedFd, RawFd)>) {
    if files.is_empty() {
        return;
    }
    let mut moved: Vec<(OwnedFd, RawFd, RawFd)> =
        files.into_iter().map(|(file, to)| (file, to, -1)).collect();
    // SAFETY: the closure runs between fork and exec in the child. It allocates nothing and takes
    // no lock; fcntl and dup2 are async-signal-safe (signal-safety(7)).
    unsafe {
        command.pre_exec(move || {
            let floor = moved.iter().map(|(_, to, _)| to + 1).max().unwrap_or(3);
            // First above all targets, so that no dup2 closes a file still to be moved.
            for (file, _, above) in &mut moved {
                *above = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, floor);
                if *above < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            for (_, to, above) in &moved {
                if libc::dup2(*above, *to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}
