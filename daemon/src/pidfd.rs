//! Processes by number, but never a wrong one.
//!
//! A process id can be given to somebody else as soon as its owner is reaped. Together
//! with the start time from `/proc/<pid>/stat` it is unique until the next boot; a pidfd opened and then checked
//! against the start time stays with that process.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Opens the process, or says that it is gone.
pub(crate) fn open(pid: u32, start_time: u64) -> io::Result<Option<OwnedFd>> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let fd = match pidfd_open(raw, PidfdFlags::NONBLOCK) {
        Ok(fd) => fd,
        // EINVAL: the number is no process's any more, but still that of its session or process group.
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    // Checked after opening: whatever has the number now cannot change under the pidfd.
    Ok(start_time_of(pid)
        .filter(|now| *now == start_time)
        .map(|_| fd))
}

/// Waits until the process has ended; at once if it has already.
pub(crate) async fn wait(pid: u32, start_time: u64) -> io::Result<()> {
    let Some(fd) = open(pid, start_time)? else {
        return Ok(());
    };
    // SAFETY: an `OwnedFd` is open and the same descriptor for as long as it lives, and it is moved in here.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
    fd.readable().await?.retain_ready();
    Ok(())
}

/// Sends a signal; `Ok` when the process is gone.
pub(crate) fn signal(pid: u32, start_time: u64, signal: i32) -> io::Result<()> {
    let Some(fd) = open(pid, start_time)? else {
        return Ok(());
    };
    let signal = named(signal)?;
    match pidfd_send_signal(fd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Whether the process lives. A zombie does not.
pub(crate) fn is_alive(pid: u32, start_time: u64) -> bool {
    stat(pid).is_some_and(|s| s.start_time == start_time && !matches!(s.state, b'Z' | b'X'))
}

/// Field 22 of `/proc/<pid>/stat`.
pub(crate) fn start_time_of(pid: u32) -> Option<u64> {
    stat(pid).map(|s| s.start_time)
}

struct Stat {
    state: u8,
    start_time: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may contain anything, also blanks and parentheses; it ends at the last one.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

fn named(number: i32) -> io::Result<Signal> {
    Signal::from_named_raw(number)
        .or_else(|| real_time(number))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("no signal {number}")))
}

fn real_time(number: i32) -> Option<Signal> {
    // SAFETY: signal(7): 34 to 64 are real-time signals that no library of this process has a use for, and
    // the value is only ever handed to the kernel, which checks it.
    (34..=64)
        .contains(&number)
        .then(|| unsafe { Signal::from_raw_unchecked(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[allow(clippy::disallowed_methods, reason = "a child to watch")]
    async fn a_process_is_waited_for_and_never_mistaken() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id();
        let start = start_time_of(pid).unwrap();
        assert!(is_alive(pid, start));
        assert!(!is_alive(pid, start + 1));
        assert!(open(pid, start + 1).unwrap().is_none());
        signal(pid, start + 1, 9).unwrap();
        assert!(is_alive(pid, start));
        signal(pid, start, 9).unwrap();
        wait(pid, start).await.unwrap();
        child.wait().unwrap();
        wait(pid, start).await.unwrap();
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a child to watch")]
    fn a_process_is_gone_although_its_group_has_its_number() {
        use std::os::unix::process::CommandExt as _;

        // The shell leads a group, leaves another process in it and ends.
        let mut leader = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 60 >/dev/null & echo $!"])
            .process_group(0)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = leader.id();
        let start = start_time_of(pid).unwrap();
        let mut said = String::new();
        io::Read::read_to_string(&mut leader.stdout.take().unwrap(), &mut said).unwrap();
        leader.wait().unwrap();
        assert!(open(pid, start).unwrap().is_none());
        signal(pid, start, 9).unwrap();
        let rest: u32 = said.trim().parse().unwrap();
        signal(rest, start_time_of(rest).unwrap(), 9).unwrap();
    }
}
