//! Talking to the node.

use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};

use crate::run::{command, output, run, succeeds};

const NODE: &str = "root@127.0.0.1";

/// How to reach the node.
pub(crate) struct Ssh {
    /// On 127.0.0.1.
    pub(crate) port: u16,
    pub(crate) key: Utf8PathBuf,
    pub(crate) known_hosts: Utf8PathBuf,
}

impl Ssh {
    /// A shell for people.
    pub(crate) fn shell(&self) -> anyhow::Result<()> {
        run(self.program("ssh", "-p").args(["-t", NODE]))
    }

    /// Runs a command line with our own standard streams; fails if it fails.
    pub(crate) fn run(&self, line: &str) -> anyhow::Result<()> {
        run(self.program("ssh", "-p").args([NODE, line]))
    }

    /// Runs a command line and gives what it printed.
    pub(crate) fn output(&self, line: &str) -> anyhow::Result<String> {
        output(self.program("ssh", "-p").args([NODE, line]))
    }

    /// Whether the node answers and a command line succeeds there.
    pub(crate) fn succeeds(&self, line: &str) -> bool {
        succeeds(self.program("ssh", "-p").args([NODE, line]))
    }

    /// Copies a file to the node.
    pub(crate) fn copy(&self, from: &Utf8Path, to: &str) -> anyhow::Result<()> {
        let to = format!("{NODE}:{to}");
        run(self.program("scp", "-P").args([from.as_str(), &to]))
    }

    /// ssh and scp take the same options, but for the port.
    fn program(&self, name: &str, port: &str) -> Command {
        let mut program = command(name);
        program
            .args(["-q", "-F", "/dev/null", "-i", self.key.as_str()])
            .args([port, &self.port.to_string()])
            .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"])
            .args(["-o", "HostKeyAlias=node", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", &format!("UserKnownHostsFile={}", self.known_hosts)]);
        program
    }
}
