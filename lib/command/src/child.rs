//! A process of ours, waited for without a thread.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, pidfd_send_signal, waitpid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::process::Born;

/// A process that leads its process group. Dropping it before its end is known kills the whole group.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    status: Option<ExitStatus>,
}

impl Child {
    pub(crate) fn new(born: Born) -> io::Result<Self> {
        let Born { pid, pidfd } = born;
        // SAFETY: an `OwnedFd` is open, stays so and is always the same; nobody gets it out of the `AsyncFd`.
        match unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) } {
            Ok(pidfd) => Ok(Self {
                pid,
                pidfd,
                status: None,
            }),
            Err(error) => {
                let (pidfd, error) = error.into_parts();
                end(pid, &pidfd);
                Err(error)
            }
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for its end. Cancel-safe: what is known is kept, and nothing else is taken.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            self.pidfd.readable().await?.clear_ready();
        }
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let ended = waitpid(Some(self.pid), WaitOptions::NOHANG)?;
            self.status = ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
        }
        Ok(self.status)
    }

    /// Kills it and all of its process group. The number cannot be another's: it has not been waited for.
    pub(crate) fn kill(&self) {
        if self.status.is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            end(self.pid, self.pidfd.get_ref());
        }
    }
}

/// Kills the group and sees to it that no zombie stays.
fn end(pid: Pid, pidfd: impl AsFd) {
    let _ = kill_process_group(pid, Signal::KILL);
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    // A process that is stuck in the kernel may take its time.
    let reap = move || {
        let _ = waitpid(Some(pid), WaitOptions::empty());
    };
    let _ = std::thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(reap);
}
