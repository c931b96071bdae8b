//! The daemon, as a process.
#![allow(clippy::disallowed_methods)]

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Machine, tools, wait};

/// Seconds the daemon may take to serve, or to end. It has to recover what an earlier one left.
const PATIENCE: u64 = 60;

/// A running daemon. Dropping it kills it, as a crash would.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
}

impl Daemon {
    pub(crate) fn start(machine: &Machine, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let path = machine.log_file();
        let log = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .with_context(|| format!("cannot open {path}"))?;
        let errors = log.try_clone().context("cannot duplicate the log")?;
        // setpriv becomes the daemon, which dies with the test's thread, however that ends.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(tools::daemon()?)
            .args(["daemon", "--config"])
            .arg(machine.config_file())
            .envs(machine.environment())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .context("cannot start the daemon")?;
        let mut daemon = Self { process };
        let may_die = !environment.is_empty();
        wait::until_true("the daemon serves", PATIENCE, || {
            if let Some(status) = daemon.ended()? {
                if may_die && status.signal() == Some(Signal::KILL.as_raw()) {
                    return Ok(true);
                }
                bail!(
                    "the daemon ended at its start: {status}\n{}",
                    machine.log_end()
                );
            }
            Ok(UnixStream::connect(machine.socket()).is_ok())
        })?;
        Ok(daemon)
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.process
            .try_wait()
            .context("cannot wait for the daemon")
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    ///
    /// If the kernel does not let us.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill().context("cannot kill the daemon")?;
        self.process.wait().context("cannot wait for the daemon")?;
        Ok(())
    }

    /// Asks it to end, as systemd does, and waits until it has.
    ///
    /// # Errors
    ///
    /// If it does not end in time, or not with success.
    pub fn terminate(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(
            pid.context("the daemon has no process number")?,
            Signal::TERM,
        )
        .context("cannot signal the daemon")?;
        let status = wait::until("the daemon ends on SIGTERM", PATIENCE, || self.ended())?;
        if !status.success() {
            bail!("the daemon ended on SIGTERM with {status}");
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
