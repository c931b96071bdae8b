//! A Proxmox VE node for one test, or for a benchmark: the simulator, in directories of their own.
#![allow(clippy::disallowed_methods)]

mod packages;
mod place;
mod task;
mod token;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::ops::Range;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

pub use place::Place;
pub use task::Task;

use crate::process::Output;
use crate::{Machine, process, tools};

/// The simulator's directory on a machine; part of the command line of all that it starts.
pub(crate) const DIRECTORY: &str = "proxmox-sim";

/// The node's name.
pub(crate) const NODE: &str = "pve1";

/// Seconds that a command of Proxmox may take: it may wait ten for a lock.
const PATIENCE: u64 = 60;

/// How many numbers pods of a test may have: few, so that all of them are tried.
const NUMBERS: u32 = 100;

/// Numbers that simulated nodes take theirs from: locks of containers are in a directory of the whole machine.
const ALL_NUMBERS: Range<u32> = 1_000_000..91_000_000;

/// A simulated node. Dropping it ends the simulator as a power cut would; containers run on.
#[derive(Debug)]
pub struct Proxmox {
    program: Utf8PathBuf,
    simulator: Child,
    place: Place,
    port: u16,
    vmids: Range<u32>,
}

impl Proxmox {
    /// Starts one on the machine, which is for one test as all that it has. Daemons that are started later take it for
    /// a node with pve-container 6.1.10.
    ///
    /// # Errors
    ///
    /// If it does not serve.
    pub fn start(machine: &Machine) -> anyhow::Result<Self> {
        let (name, value) = Self::packages(&machine.temporary_directory().join("dpkg"))?;
        machine.set_environment(name, &value);
        Self::start_in(Place {
            directory: machine.root().join(DIRECTORY),
            mount: machine.root().join("pve"),
            lxc_path: machine.lxc_dir(),
        })
    }

    /// Makes a database of dpkg with the package by whose version nexcage knows what Proxmox can do, pve-container 6.1.10. Gives the
    /// environment variable that makes a daemon ask there.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn packages(directory: &Utf8Path) -> anyhow::Result<(&'static str, String)> {
        packages::install_pve_container(directory)?;
        Ok((packages::DATABASE, directory.to_string()))
    }

    /// Starts one anywhere.
    ///
    /// # Errors
    ///
    /// If it does not serve.
    pub fn start_in(place: Place) -> anyhow::Result<Self> {
        Self::start_program(tools::proxmox_sim()?, place, NUMBERS)
    }

    /// Starts one anywhere, by this build of the simulator, for this many pods.
    ///
    /// # Errors
    ///
    /// If it does not serve.
    pub fn start_program(program: Utf8PathBuf, place: Place, numbers: u32) -> anyhow::Result<Self> {
        let mount = &place.mount;
        fs::create_dir_all(mount).with_context(|| format!("cannot make {mount}"))?;
        let port = free_port()?;
        let mut simulator = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&program)
            .args(["--dir", place.directory.as_str(), "serve", "--node", NODE])
            .args(["--mount", mount.as_str()])
            .args(["--lxc-path", place.lxc_path.as_str()])
            .args(["--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the Proxmox simulator")?;
        let said = simulator.stdout.take().context("it has no output")?;
        let mut line = String::new();
        BufReader::new(said)
            .read_line(&mut line)
            .context("cannot read what the simulator says")?;
        ensure!(line.trim() == "ready", "the simulator says {line:?}");
        Ok(Self {
            program,
            simulator,
            place,
            port,
            vmids: some(numbers),
        })
    }

    /// The sections of the daemon's configuration that make it use this node for all pods. `start` is `direct` or `api`.
    ///
    /// # Errors
    ///
    /// If there can be no token.
    pub fn config(&self, start: &str) -> anyhow::Result<Value> {
        let token_file = self.token_file();
        if !token_file.exists() {
            token::make(self, &token_file)?;
        }
        Ok(self.place.config(start, self.port, self.pods()))
    }

    /// `pct`, whose failure is an error.
    ///
    /// # Errors
    ///
    /// In Proxmox's words.
    pub fn pct(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.try_pct(arguments)?.success()
    }

    /// `pct`, which may fail.
    ///
    /// # Errors
    ///
    /// If it cannot be run.
    pub fn try_pct(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.run("pct", arguments)
    }

    /// Makes the node misbehave: `quorum off`, `api down` and so on.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn tell(&self, words: &str) -> anyhow::Result<()> {
        let words: Vec<_> = words.split(' ').collect();
        self.run("ctl", &words)?.success().map(drop)
    }

    fn run(&self, command: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let all = [
            &["--dir", self.place.directory.as_str(), command],
            arguments,
        ]
        .concat();
        process::run(self.program.as_str(), &all, PATIENCE)
    }

    /// The API's address.
    #[must_use]
    pub fn api_url(&self) -> String {
        place::api_url(self.port)
    }

    /// The authority of the API's certificate.
    #[must_use]
    pub fn ca_file(&self) -> Utf8PathBuf {
        self.place.ca_file()
    }

    /// The daemon's token, once there is a configuration.
    #[must_use]
    pub fn token_file(&self) -> Utf8PathBuf {
        self.place.token_file()
    }

    /// The jobs of the cluster, if there are any.
    #[must_use]
    pub fn jobs_file(&self) -> Utf8PathBuf {
        self.place.mount.join("jobs.cfg")
    }

    /// The numbers that pods may have.
    #[must_use]
    pub fn pods(&self) -> Range<u32> {
        self.vmids.clone()
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// LXC's directory of a container.
    #[must_use]
    pub fn container(&self, vmid: u32) -> Utf8PathBuf {
        self.place.lxc_path.join(vmid.to_string())
    }

    /// The configuration file of a container.
    #[must_use]
    pub fn conf(&self, vmid: u32) -> Utf8PathBuf {
        self.place
            .mount
            .join(format!("nodes/{NODE}/lxc/{vmid}.conf"))
    }

    /// Numbers of the containers that have a configuration, in order.
    ///
    /// # Errors
    ///
    /// If they cannot be listed.
    pub fn numbers(&self) -> anyhow::Result<Vec<u32>> {
        let directory = self.place.mount.join(format!("nodes/{NODE}/lxc"));
        numbers_in(&directory, |name| name.strip_suffix(".conf"))
    }

    /// Numbers of the containers that have a directory of LXC, in order.
    ///
    /// # Errors
    ///
    /// If they cannot be listed.
    pub fn directories(&self) -> anyhow::Result<Vec<u32>> {
        numbers_in(&self.place.lxc_path, |name| Some(name))
    }

    /// Tasks of this type that have ended, such as `vzstart`, in the order of their beginnings; none where the file system does not know when a
    /// file was made.
    ///
    /// # Errors
    ///
    /// If their logs cannot be read.
    pub fn tasks(&self, kind: &str) -> anyhow::Result<Vec<Task>> {
        task::ended(&self.place.directory.join("tasks"), kind)
    }
}

impl Drop for Proxmox {
    fn drop(&mut self) {
        let _ = self.simulator.kill();
        let _ = self.simulator.wait();
        // Without its server nobody can even look below it.
        let flags = rustix::mount::UnmountFlags::DETACH;
        if let Err(error) = rustix::mount::unmount(self.place.mount.as_str(), flags) {
            eprintln!("cannot unmount {}: {error}", self.place.mount);
        }
    }
}

/// The numbers that names of entries stand for, in order.
fn numbers_in(
    directory: &Utf8Path,
    number: impl Fn(&str) -> Option<&str>,
) -> anyhow::Result<Vec<u32>> {
    let entries = directory
        .read_dir_utf8()
        .with_context(|| format!("cannot list {directory}"))?;
    let mut numbers: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| number(entry.file_name())?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// So many numbers that hardly anybody else takes.
fn some(numbers: u32) -> Range<u32> {
    let ranges = (ALL_NUMBERS.end - ALL_NUMBERS.start) / numbers;
    let first = ALL_NUMBERS.start + numbers * rand::random_range(0..ranges);
    first..first + numbers
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    match listener.local_addr() {
        Ok(address) => Ok(address.port()),
        Err(error) => bail!("a socket has no address: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_many_as_wanted_and_real_ones() {
        for numbers in [100, 1000] {
            let some = some(numbers);
            assert_eq!(some.end - some.start, numbers);
            assert!(some.start >= ALL_NUMBERS.start && some.end <= ALL_NUMBERS.end);
        }
    }
}
