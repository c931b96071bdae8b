//! The first process of a sandbox.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// The first process of a sandbox, safe against reuse of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxInit {
    /// Process id on the host.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks from boot to its start.
    pub start_time: u64,
}

impl SandboxInit {
    /// The process that has this number now.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is none; `InvalidData` for what proc(5) does not describe.
    pub fn of(pid: u32) -> io::Result<Self> {
        let (_, start_time) = stat(pid)?;
        Ok(Self { pid, start_time })
    }

    /// Whether it is this process that has the number, and runs: a zombie does not.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_ok_and(|(state, start_time)| {
            start_time == self.start_time && !matches!(state, 'Z' | 'X')
        })
    }

    /// Asks it to end with SIGTERM and waits at most `patience`. False when it still runs.
    pub async fn terminate(self, patience: Duration) -> bool {
        // A blocking thread waits in poll(2): the descriptor wakes it at once.
        let asked = tokio::task::spawn_blocking(move || self.ask_to_end(patience)).await;
        match asked.map_err(io::Error::from).flatten() {
            Ok(ended) => ended,
            Err(error) => {
                tracing::debug!(pid = self.pid, %error, "init cannot be asked to end");
                !self.is_alive()
            }
        }
    }

    fn ask_to_end(&self, patience: Duration) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            // EINVAL: the number is only that of a session or process group any more.
            Err(Errno::SRCH | Errno::INVAL) => return Ok(true),
            Err(e) => return Err(e.into()),
        };
        // The descriptor holds the number: from here on nobody else can get it.
        if !self.is_alive() {
            return Ok(true);
        }
        match pidfd_send_signal(&process, Signal::TERM) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
        // A pidfd is readable when the process has ended, pidfd_open(2).
        let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(!self.is_alive()),
            Err(e) => Err(e.into()),
        }
    }
}

/// State and start time, fields 3 and 22 of proc_pid_stat(5).
fn stat(pid: u32) -> io::Result<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_stat(text: &str) -> Option<(char, u64)> {
    // The name, field 2, may contain anything, parentheses and spaces too.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_fields() {
        let text = "42 (a) S 1 (b) R 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 9 9\n";
        assert_eq!(parse_stat(text), Some(('R', 987)));
        assert_eq!(parse_stat("42 (cat) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn tells_itself_from_a_later_process_of_its_number() {
        let me = SandboxInit::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let other = SandboxInit {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(!other.is_alive());
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods, reason = "a process to end")]
    async fn ends_a_process_that_listens() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = SandboxInit::of(child.id()).unwrap();
        assert!(process.terminate(Duration::from_secs(5)).await);
        assert!(!process.is_alive());
        child.wait().unwrap();
        assert!(process.terminate(Duration::ZERO).await);
    }
}
