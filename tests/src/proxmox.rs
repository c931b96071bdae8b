//! A Proxmox VE node for one test, or for a benchmark: the simulator, in directories of their own.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

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

/// Where dpkg is told that its database is.
const DPKG_DATABASE: &str = "DPKG_ADMINDIR";

/// A simulated node. Dropping it ends the simulator as a power cut would; containers run on.
#[derive(Debug)]
pub struct Proxmox {
    program: Utf8PathBuf,
    simulator: Child,
    place: Place,
    port: u16,
    vmids: Range<u32>,
}

/// Something that Proxmox did in the background.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// When its log was made, which is the first that its process does.
    pub begun: SystemTime,
    /// From then to the last line of its log. The kernel's clock for files has steps of some milliseconds.
    pub took: Duration,
}

/// Where a simulated node is on a machine.
#[derive(Clone, Debug)]
pub struct Place {
    /// What it keeps for itself.
    pub directory: Utf8PathBuf,
    /// Where its cluster file system is mounted.
    pub mount: Utf8PathBuf,
    /// Where LXC keeps containers.
    pub lxc_path: Utf8PathBuf,
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
        install_pve_container(directory)?;
        Ok((DPKG_DATABASE, directory.to_string()))
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
            self.make_token(&token_file)?;
        }
        Ok(self.place.config(start, self.port, self.pods()))
    }

    /// What docs/proxmox.md tells administrators to do.
    fn make_token(&self, file: &Utf8Path) -> anyhow::Result<()> {
        let (user, node) = ("nexcage@pve", "NexcageCluster");
        let commands: [&[&str]; 5] = [
            &["role", "add", "Nexcage", "--privs", "VM.Audit VM.PowerMgmt"],
            &["role", "add", node, "--privs", "Sys.Audit"],
            &["user", "add", user],
            &[
                "acl", "modify", "/vms", "--roles", "Nexcage", "--users", user,
            ],
            &[
                "acl",
                "modify",
                "/",
                "--roles",
                node,
                "--users",
                user,
                "--propagate",
                "0",
            ],
        ];
        for command in commands {
            self.run("pveum", command)?.success()?;
        }
        let add = ["user", "token", "add", user, "node", "--privsep", "0"];
        let made = self
            .run("pveum", &[&add[..], &["--output-format", "json"]].concat())?
            .success()?;
        let made: Value = serde_json::from_str(&made).context("pveum printed no JSON")?;
        let secret = made["value"].as_str().context("pveum printed no secret")?;
        fs::write(file, format!("{user}!node={secret}\n"))
            .and_then(|()| {
                use std::os::unix::fs::PermissionsExt as _;
                fs::set_permissions(file, fs::Permissions::from_mode(0o600))
            })
            .with_context(|| format!("cannot write {file}"))
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
        api_url(self.port)
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
        let directory = self.place.directory.join("tasks");
        let mut tasks = Vec::new();
        // As Proxmox keeps logs: in one of 16 directories, by name.
        for below in entries(&directory)? {
            for log in entries(&below)? {
                let name = log.file_name().unwrap_or_default();
                if name.split(':').nth(5) == Some(kind) {
                    tasks.extend(task(&log)?);
                }
            }
        }
        tasks.sort_by_key(|task: &Task| task.begun);
        Ok(tasks)
    }
}

impl Place {
    /// The sections of the daemon's configuration, of a node that is here; its API has this port. `start` is `direct` or `api`.
    #[must_use]
    pub fn config(&self, start: &str, port: u16, vmids: Range<u32>) -> Value {
        json!({
            "default_backend": "proxmox",
            "runtime_handlers": { "lxc": { "backend": "lxc" }, "host": { "backend": "host" } },
            "proxmox": {
                "node": NODE,
                "pve_dir": self.mount,
                "lxc_path": self.lxc_path,
                "vmids": { "first": vmids.start, "last": vmids.end - 1 },
                "start": start,
                "api_url": api_url(port),
                "ca_file": self.ca_file(),
                "token_file": self.token_file(),
            },
        })
    }

    fn ca_file(&self) -> Utf8PathBuf {
        self.mount.join("pve-root-ca.pem")
    }

    fn token_file(&self) -> Utf8PathBuf {
        self.directory.join("nexcage-token")
    }
}

fn api_url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

/// What is in a directory; nothing if there is none.
fn entries(directory: &Utf8Path) -> anyhow::Result<Vec<Utf8PathBuf>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let entries = directory
        .read_dir_utf8()
        .with_context(|| format!("cannot list {directory}"))?;
    Ok(entries
        .flatten()
        .map(camino::Utf8DirEntry::into_path)
        .collect())
}

/// The task that has this log, if it has ended.
fn task(log: &Utf8Path) -> anyhow::Result<Option<Task>> {
    let text = fs::read_to_string(log).with_context(|| format!("cannot read {log}"))?;
    let last = text.lines().next_back().unwrap_or_default();
    if !last.starts_with("TASK ") {
        return Ok(None);
    }
    let metadata = log
        .metadata()
        .with_context(|| format!("cannot examine {log}"))?;
    let Ok(begun) = metadata.created() else {
        return Ok(None);
    };
    let ended = metadata
        .modified()
        .with_context(|| format!("cannot examine {log}"))?;
    let took = ended.duration_since(begun).unwrap_or_default();
    Ok(Some(Task { begun, took }))
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

/// A database of dpkg with one package.
fn install_pve_container(directory: &Utf8Path) -> anyhow::Result<()> {
    let status = "Package: pve-container\nStatus: install ok installed\nMaintainer: nobody\n\
        Architecture: all\nVersion: 6.1.10\nDescription: none\n";
    for below in ["info", "updates"] {
        let path = directory.join(below);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {path}"))?;
    }
    for (file, text) in [("status", status), ("info/format", "1\n")] {
        let path = directory.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
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

    #[test]
    fn tasks_are_told_by_their_logs() {
        let name = format!("nexcage-tests-{}", rand::random::<u64>());
        let directory = Utf8PathBuf::try_from(std::env::temp_dir().join(name)).unwrap();
        fs::create_dir(&directory).unwrap();
        let log = directory.join("log");
        fs::write(&log, "working\n").unwrap();
        let running = task(&log).unwrap();
        let begun = log.metadata().unwrap().created().ok();
        fs::write(&log, "working\nTASK OK\n").unwrap();
        let ended = task(&log).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(running.is_none());
        // Not on every file system.
        assert_eq!(ended.map(|task| task.begun), begun);
    }
}
