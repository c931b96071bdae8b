//! Processes by number, safe against reuse of the number.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Time that a killed process has to die.
const DYING: Duration = Duration::from_secs(5);

/// State and start time of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Third field of `/proc/<pid>/stat` (proc_pid_stat(5)).
    pub(crate) state: char,
    /// Field 22, in clock ticks from boot.
    pub(crate) start_time: u64,
}

impl Stat {
    /// Of a process; `None` if there is none.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Whether it has ended and only waits for its parent to notice.
    pub(crate) fn is_dead(self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The second field is the program's name in parentheses and may contain anything.
fn parse(stat: &str) -> Option<Stat> {
    let mut rest = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    Some(Stat {
        state: rest.next()?.chars().next()?,
        start_time: rest.nth(18)?.parse().ok()?,
    })
}

/// A process that can be waited for and killed.
#[derive(Debug)]
pub(crate) struct Process(OwnedFd);

impl Process {
    /// Takes hold of the process `pid` if its arguments are as wanted; `None` if it is gone or another one.
    pub(crate) fn find(pid: u32, wanted: impl Fn(&[&str]) -> bool) -> Option<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Read after it is held, so that it is the same process's.
        let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
        let line = String::from_utf8_lossy(&line);
        let args: Vec<&str> = line.split('\0').collect();
        wanted(&args).then_some(Self(fd))
    }

    /// Every process whose arguments are as wanted.
    pub(crate) fn find_all(wanted: impl Fn(&[&str]) -> bool) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok());
            found.extend(pid.and_then(|pid| Self::find(pid, &wanted)));
        }
        Ok(found)
    }

    /// Waits for its end, at most for `patience`, then kills it.
    pub(crate) async fn end(self, patience: Duration) -> io::Result<()> {
        let ending = move || {
            if self.ends_within(patience)? {
                return Ok(());
            }
            match pidfd_send_signal(&self.0, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => return Err(e.into()),
            }
            match self.ends_within(DYING)? {
                true => Ok(()),
                false => Err(io::ErrorKind::TimedOut.into()),
            }
        };
        tokio::task::spawn_blocking(ending).await?
    }

    /// A pidfd becomes readable when its process has ended (pidfd_open(2)).
    fn ends_within(&self, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_may_contain_anything() {
        let stat = "7 (a) b) R) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let expected = Stat {
            state: 'S',
            start_time: 4242,
        };
        assert_eq!(parse(stat), Some(expected));
    }

    #[test]
    fn this_process_lives() {
        let me = Stat::of(std::process::id()).unwrap();
        assert!(!me.is_dead() && me.start_time > 0);
        assert_eq!(Stat::of(u32::MAX), None);
    }

    #[test]
    fn only_the_wanted_process_is_found() {
        assert!(Process::find(std::process::id(), |_| true).is_some());
        assert!(Process::find(std::process::id(), |_| false).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
