//! Starting programs, and looking at processes.
//!
//! The daemon starts processes through nexcage-command. Here they are started plainly: what that crate
//! costs belongs to what is measured.
#![allow(clippy::disallowed_methods)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Time a process has to end.
const PATIENCE: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// A program, with nothing to read.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end and expects success.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// Its first line of output, for the report; `?` if it has none.
pub(crate) fn first_line(program: &str, args: &[&str]) -> String {
    let output = run(command(program).args(args));
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or("?").to_owned()
}

/// A server that dies with this program, however that ends.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Starts `program` with more environment variables; what it says goes to `log`.
    pub(crate) fn start(
        program: &str,
        args: &[&str],
        environment: &[(&str, &str)],
        log: &Utf8Path,
    ) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot make {log}"))?;
        let errors = file.try_clone().context("cannot duplicate the log")?;
        let child = command("setpriv")
            .args(["--pdeathsig", "KILL", program])
            .args(args)
            .envs(environment.iter().copied())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it with SIGTERM. Connections are served meanwhile, for a server says goodbye.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        signal(self.pid(), Signal::TERM);
        let pid = self.pid();
        let ended = tokio::task::spawn_blocking(move || wait(pid)).await;
        ended
            .context("cannot wait")?
            .context("a server does not end")?;
        self.0.wait().context("cannot wait for a server")?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal; a process that is gone needs none.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Waits until a process has ended.
pub(crate) fn wait(pid: u32) -> anyhow::Result<()> {
    let Some(pidfd) = pid_of(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return Ok(());
    };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&PATIENCE))
        .with_context(|| format!("cannot wait for process {pid}"))?;
    if ended == 0 {
        bail!("process {pid} has not ended after {} s", PATIENCE.tv_sec);
    }
    Ok(())
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// A process and what tells it from others.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// `comm`.
    pub(crate) name: String,
    /// Arguments, with spaces between them.
    pub(crate) line: String,
}

/// All processes but this one.
pub(crate) fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter_map(look)
        .collect()
}

fn look(pid: u32) -> Option<Process> {
    let dir = Utf8PathBuf::from(format!("/proc/{pid}"));
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let (before, after) = stat.rsplit_once(") ")?;
    let line = fs::read(dir.join("cmdline")).ok()?;
    Some(Process {
        pid,
        parent: after.split(' ').nth(1)?.parse().ok()?,
        name: before.split_once('(')?.1.to_owned(),
        line: String::from_utf8_lossy(&line).replace('\0', " "),
    })
}

/// Tries until `done`, every 20 ms for at most 20 seconds.
pub(crate) fn until(
    what: &str,
    mut done: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    for _ in 0..1000 {
        if done()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("not after 20 s: {what}")
}
