//! A program that runs another one in a cgroup and waits for it.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitStatus;

use camino::Utf8Path;
use rustix::process::{
    Signal, WaitOptions, getpid, getppid, set_parent_process_death_signal, waitpid,
};

use crate::process::{Born, clone, open_cgroup};

/// Runs `program` in the cgroup of this cgroup v2 directory, from before its first instruction, and waits for it. Everything else
/// it has from the caller: files, environment, directory. It is killed when the caller dies.
///
/// For a small program whose only task this is, without threads; the daemon uses [`Command`](crate::Command).
///
/// # Errors
///
/// What the kernel says. A program that cannot be executed writes why to standard error and ends with 126.
pub fn run_inside(
    cgroup: &Utf8Path,
    program: &OsString,
    args: impl IntoIterator<Item = OsString>,
) -> io::Result<ExitStatus> {
    let directory = open_cgroup(cgroup)?;
    let caller = getpid();
    // SAFETY: there are no other threads, so no lock is held by one, and the child may do what it likes.
    let Some(Born { pid, .. }) = (unsafe { clone(Some(&directory)) })? else {
        let error = become_program(caller, program, args);
        eprintln!("{}: {error}", program.display());
        // As the shell answers for what it cannot execute.
        std::process::exit(126);
    };
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ExitStatus::from_raw(status.as_raw())),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the place that may")]
fn become_program(
    caller: rustix::process::Pid,
    program: &OsString,
    args: impl IntoIterator<Item = OsString>,
) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have died before it was asked for.
    if getppid() != Some(caller) {
        return io::Error::other("its caller is gone");
    }
    std::process::Command::new(program).args(args).exec()
}
