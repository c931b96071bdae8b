//! Talking to the node.

use std::process::Command;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::run::{command, output, run, succeeds};

const NODE: &str = "root@127.0.0.1";

/// For what takes no time, in an emulated machine that is busy.
const SHORT: Duration = Duration::from_secs(60);

/// For files: some tens of megabytes, encrypted by an emulated processor.
const COPY: Duration = Duration::from_secs(600);

/// How to reach the node.
pub(super) struct Ssh {
    /// On 127.0.0.1.
    pub(super) port: u16,
    pub(super) key: Utf8PathBuf,
    pub(super) known_hosts: Utf8PathBuf,
}

impl Ssh {
    /// A shell for people.
    pub(super) fn shell(&self) -> anyhow::Result<()> {
        run(self.program(command("ssh"), "-p").args(["-t", NODE]))
    }

    /// Runs a command line for people, with our own standard streams; fails if it fails.
    pub(super) fn run(&self, line: &str) -> anyhow::Result<()> {
        run(self.program(command("ssh"), "-p").args([NODE, line]))
    }

    /// The same, but it is killed when its time is up. What it has started in the node may go on.
    pub(super) fn run_within(&self, line: &str, patience: Duration) -> anyhow::Result<()> {
        run(&mut self.command(line, patience))
    }

    /// A command that runs a command line; it is killed when its time is up, and ends with 124 then.
    pub(super) fn command(&self, line: &str, patience: Duration) -> Command {
        let mut ssh = self.within("ssh", "-p", patience);
        ssh.args([NODE, line]);
        ssh
    }

    /// Runs a short command line and gives what it printed.
    pub(super) fn output(&self, line: &str) -> anyhow::Result<String> {
        output(self.within("ssh", "-p", SHORT).args([NODE, line]))
    }

    /// Whether the node answers and a short command line succeeds there.
    pub(super) fn succeeds(&self, line: &str) -> bool {
        succeeds(self.within("ssh", "-p", SHORT).args([NODE, line]))
    }

    /// Copies a file to the node.
    pub(super) fn copy(&self, from: &Utf8Path, to: &str) -> anyhow::Result<()> {
        let to = format!("{NODE}:{to}");
        run(self.within("scp", "-P", COPY).args([from.as_str(), &to]))
    }

    /// Copies a directory and all below it from the node.
    pub(super) fn fetch(&self, from: &str, to: &Utf8Path) -> anyhow::Result<()> {
        let from = format!("{NODE}:{from}");
        run(self
            .within("scp", "-P", COPY)
            .args(["-r", &from, to.as_str()]))
    }

    fn within(&self, name: &str, port: &str, patience: Duration) -> Command {
        let mut timeout = command("timeout");
        timeout
            .args(["--kill-after=5", &patience.as_secs().to_string()])
            .arg(name);
        self.program(timeout, port)
    }

    /// ssh and scp take the same options, but for the port.
    fn program(&self, mut program: Command, port: &str) -> Command {
        program
            .args(["-q", "-F", "/dev/null", "-i", self.key.as_str()])
            .args([port, &self.port.to_string()])
            .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"])
            // A machine that was switched off says nothing.
            .args([
                "-o",
                "ServerAliveInterval=10",
                "-o",
                "ServerAliveCountMax=6",
            ])
            .args(["-o", "HostKeyAlias=node", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", &format!("UserKnownHostsFile={}", self.known_hosts)]);
        program
    }
}
