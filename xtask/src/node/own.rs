//! A node of a chore's own, which is gone when the chore is, however that ends.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};

use super::machine::{Machine, Owner};
use super::share::More;
use super::{Began, Parts, entries, nodes};
use crate::files::remove_tree;

/// A running node.
pub(crate) struct Own {
    pub(super) machine: Machine,
    pub(super) began: Began,
    dir: Utf8PathBuf,
    results: Utf8PathBuf,
}

impl Own {
    /// Starts it, with `more` on its share disk. Its name is `prefix` and the number of this process, so that neither people's
    /// node nor that of another chore is touched. What it says goes to files in `results`.
    pub(crate) fn start(prefix: &str, more: &More, results: Utf8PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&results).with_context(|| format!("cannot make {results}"))?;
        sweep(prefix)?;
        let dir = nodes().join(format!("{prefix}{}", std::process::id()));
        let (machine, began) = Parts::build()?.start(&dir, more, Owner::ThisThread)?;
        Ok(Self {
            machine,
            began,
            dir,
            results,
        })
    }

    /// Where results go.
    pub(crate) fn results(&self) -> &Utf8Path {
        &self.results
    }

    /// Runs a command line in the node and shows what it says, which is also kept in `<log>.log`.
    pub(crate) fn run(&self, log: &str, line: &str, patience: Duration) -> anyhow::Result<()> {
        let path = self.results.join(format!("{log}.log"));
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {path}"))?;
        let mut ssh = self
            .machine
            .ssh()
            .command(&format!("exec 2>&1; {line}"), patience);
        let mut child = ssh
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start ssh")?;
        let mut said = child.stdout.take().context("ssh has no output")?;
        let mut buffer = [0; 4096];
        // It ends when `timeout` ends ssh, at the latest.
        loop {
            let length = said.read(&mut buffer).context("cannot read from ssh")?;
            if length == 0 {
                break;
            }
            file.write_all(&buffer[..length])
                .and_then(|()| std::io::stdout().write_all(&buffer[..length]))
                .with_context(|| format!("cannot write {path}"))?;
        }
        let status = child.wait().context("cannot wait for ssh")?;
        match status.code() {
            Some(0) => Ok(()),
            Some(124) => bail!("{log} was not done after {patience:?}"),
            _ => bail!("{log} failed; see {path}"),
        }
    }

    /// Copies all that is below a directory of the node to the results.
    pub(crate) fn fetch(&self, dir: &str) -> anyhow::Result<()> {
        self.machine.ssh().fetch(&format!("{dir}/."), &self.results)
    }

    /// Switches it off and forgets it.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        self.machine.power_off()?;
        remove_tree(&self.dir)
    }
}

/// Removes the nodes of chores that were killed. QEMU has ended with them.
fn sweep(prefix: &str) -> anyhow::Result<()> {
    for dir in entries(&nodes())? {
        let pid = dir.file_name().and_then(|name| name.strip_prefix(prefix));
        if pid.is_some_and(|pid| !Utf8PathBuf::from("/proc").join(pid).exists()) {
            remove_tree(&dir)?;
        }
    }
    Ok(())
}
