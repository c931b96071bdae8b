//! A Proxmox VE node for one test: the simulator, in the machine's own directories.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

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

/// How many numbers pods may have.
const NUMBERS: u32 = 100;

/// A simulated node. Dropping it ends the simulator as a power cut would; containers run on.
#[derive(Debug)]
pub struct Proxmox {
    simulator: Child,
    place: Place,
    port: u16,
    first: u32,
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
        let packages = machine.temporary_directory().join("dpkg");
        install_pve_container(&packages)?;
        machine.set_environment("DPKG_ADMINDIR", packages.as_str());
        Self::start_in(Place {
            directory: machine.root().join(DIRECTORY),
            mount: machine.root().join("pve"),
            lxc_path: machine.lxc_dir(),
        })
    }

    /// Starts one anywhere.
    ///
    /// # Errors
    ///
    /// If it does not serve.
    pub fn start_in(place: Place) -> anyhow::Result<Self> {
        let mount = &place.mount;
        fs::create_dir_all(mount).with_context(|| format!("cannot make {mount}"))?;
        let port = free_port()?;
        let mut simulator = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(tools::proxmox_sim()?)
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
            simulator,
            place,
            port,
            // Locks of containers are in a directory of the whole machine.
            first: 1_000_000 + NUMBERS * rand::random_range(0..900_000),
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
        Ok(json!({
            "default_backend": "proxmox",
            "runtime_handlers": { "lxc": { "backend": "lxc" }, "host": { "backend": "host" } },
            "proxmox": {
                "node": NODE,
                "pve_dir": self.place.mount,
                "lxc_path": self.place.lxc_path,
                "vmids": { "first": self.first, "last": self.first + NUMBERS - 1 },
                "start": start,
                "api_url": self.api_url(),
                "ca_file": self.ca_file(),
                "token_file": token_file,
            },
        }))
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
        let simulator = tools::proxmox_sim()?;
        let all = [
            &["--dir", self.place.directory.as_str(), command],
            arguments,
        ]
        .concat();
        process::run(simulator.as_str(), &all, PATIENCE)
    }

    /// The API's address.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The authority of the API's certificate.
    #[must_use]
    pub fn ca_file(&self) -> Utf8PathBuf {
        self.place.mount.join("pve-root-ca.pem")
    }

    /// The daemon's token, once there is a configuration.
    #[must_use]
    pub fn token_file(&self) -> Utf8PathBuf {
        self.place.directory.join("nexcage-token")
    }

    /// The first number that a pod may have.
    #[must_use]
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The jobs of the cluster, if there are any.
    #[must_use]
    pub fn jobs_file(&self) -> Utf8PathBuf {
        self.place.mount.join("jobs.cfg")
    }

    /// The numbers that pods may have.
    #[must_use]
    pub fn pods(&self) -> std::ops::Range<u32> {
        self.first..self.first + NUMBERS
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
fn install_pve_container(directory: &Utf8PathBuf) -> anyhow::Result<()> {
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

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    match listener.local_addr() {
        Ok(address) => Ok(address.port()),
        Err(error) => bail!("a socket has no address: {error}"),
    }
}
