//! A place of its own for one test.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use crate::{Crictl, Daemon, process, sweep, tools};

/// Hosts whose images the local registry has.
const MIRRORED: [&str; 4] = ["registry.k8s.io", "k8s.gcr.io", "gcr.io", "docker.io"];

/// Directories, a network and a configuration for one daemon. Dropping it removes all of it, and all
/// that the daemon made.
#[derive(Debug)]
pub struct Machine {
    name: String,
    root: Utf8PathBuf,
    run: Utf8PathBuf,
    crictl: Crictl,
    failed: AtomicBool,
    environment: Mutex<Vec<(String, String)>>,
    /// Held as long as the machine has an owner.
    _lock: File,
}

impl Machine {
    /// Runs a test on a machine of its own.
    ///
    /// # Panics
    ///
    /// If the test gives an error; the daemon's log is printed before that.
    pub fn test(test: impl FnOnce(&Self) -> anyhow::Result<()>) {
        let outcome = Self::new().and_then(|machine| {
            let outcome = test(&machine);
            if outcome.is_ok() {
                machine.passed();
            }
            outcome
        });
        if let Err(error) = outcome {
            panic!("{error:#}");
        }
    }

    /// Makes one, after removing all those that have no owner any more.
    ///
    /// # Errors
    ///
    /// If we are not root, or something cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("system tests start containers and need root");
        }
        sweep::abandoned()?;

        let name = format!("nxt{:06x}", rand::random_range(0..1 << 24));
        let root = Utf8PathBuf::from("/var/lib").join(&name);
        let run = Utf8PathBuf::from("/run").join(&name);
        let lock = sweep::own(&root)?;
        for dir in ["cni", "logs", "lxc", "state", "tmp"] {
            let dir = root.join(dir);
            fs::create_dir(&dir).with_context(|| format!("cannot make {dir}"))?;
        }
        fs::create_dir(&run).with_context(|| format!("cannot make {run}"))?;

        let crictl = Crictl::new(&run.join("nexcage.sock"))?;
        // From here on, dropping it cleans up.
        let machine = Self {
            name,
            root,
            run,
            crictl,
            failed: AtomicBool::new(true),
            environment: Mutex::default(),
            _lock: lock,
        };
        machine.write_network()?;
        machine.write_config(&json!({}))?;
        Ok(machine)
    }

    /// Says that the test has passed, so that dropping the machine prints no log.
    pub fn passed(&self) {
        self.failed.store(false, Ordering::Relaxed);
    }

    /// The name that everything here carries; also that of the bridge and of the CNI network.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What survives a reboot: the daemon's state, LXC's directory, logs.
    #[must_use]
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// What a reboot clears: sockets, network namespaces.
    #[must_use]
    pub fn run_dir(&self) -> &Utf8Path {
        &self.run
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> Utf8PathBuf {
        self.run.join("nexcage.sock")
    }

    /// The daemon's configuration file.
    #[must_use]
    pub fn config_file(&self) -> Utf8PathBuf {
        self.root.join("config.json")
    }

    /// The CNI configuration, the only one in its directory.
    #[must_use]
    pub fn network_file(&self) -> Utf8PathBuf {
        self.root.join("cni/10-nxt.conflist")
    }

    /// Where pods are pinned that have a network of their own.
    #[must_use]
    pub fn netns_dir(&self) -> Utf8PathBuf {
        self.run.join("netns")
    }

    /// `lxcpath`, with one directory per LXC container.
    #[must_use]
    pub fn lxc_dir(&self) -> Utf8PathBuf {
        self.root.join("lxc")
    }

    /// What all daemons on this machine have logged.
    #[must_use]
    pub fn log_file(&self) -> Utf8PathBuf {
        self.root.join("daemon.log")
    }

    /// A directory for pods' logs, as kubelet makes one. The daemon never removes it.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn log_directory(&self, pod: &str) -> anyhow::Result<Utf8PathBuf> {
        let dir = self.root.join("logs").join(pod);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {dir}"))?;
        Ok(dir)
    }

    /// A directory for whatever a test wants to write.
    #[must_use]
    pub fn temporary_directory(&self) -> Utf8PathBuf {
        self.root.join("tmp")
    }

    /// Writes `content` into a file for crictl and gives its path.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn file(&self, name: &str, content: &Value) -> anyhow::Result<String> {
        let path = self.temporary_directory().join(name);
        fs::write(&path, content.to_string()).with_context(|| format!("cannot write {path}"))?;
        Ok(path.into_string())
    }

    /// crictl for the daemon on this machine.
    #[must_use]
    pub fn crictl(&self) -> &Crictl {
        &self.crictl
    }

    /// Gives an environment variable to all daemons that are started from now on.
    pub fn set_environment(&self, name: &str, value: &str) {
        let variable = (name.to_owned(), value.to_owned());
        let mut environment = self.environment.lock();
        environment
            .as_mut()
            .unwrap_or_else(|poisoned| poisoned.get_mut())
            .push(variable);
    }

    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let environment = self.environment.lock();
        environment.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the daemon and waits until it serves.
    ///
    /// # Errors
    ///
    /// If it ends instead, with what it logged.
    pub fn start_daemon(&self) -> anyhow::Result<Daemon> {
        Daemon::start(self, &[])
    }

    /// Starts the daemon, which will kill itself at a failpoint. It may do so before it serves.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or ends in another way.
    pub fn start_daemon_failing_at(&self, failpoint: &str) -> anyhow::Result<Daemon> {
        Daemon::start(self, &[("NEXCAGE_FAILPOINT", failpoint)])
    }

    /// Starts the daemon, whose periodic work comes round every `milliseconds`.
    ///
    /// # Errors
    ///
    /// If it ends instead, with what it logged.
    pub fn start_daemon_in_haste(&self, milliseconds: u32) -> anyhow::Result<Daemon> {
        Daemon::start(self, &[("NEXCAGE_INTERVAL_MS", &milliseconds.to_string())])
    }

    /// Writes the configuration file anew, with the keys of `more` put over the usual ones at
    /// the top level.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write_config(&self, more: &Value) -> anyhow::Result<()> {
        let registry = tools::registry()?;
        let mirror = json!({ "mirrors": [format!("http://{registry}")] });
        let registries: serde_json::Map<_, _> = MIRRORED
            .iter()
            .map(|&host| (host.to_owned(), mirror.clone()))
            .collect();
        let mut config = json!({
            "lxc_path": self.lxc_dir(),
            "logging": { "level": "debug" },
            "kubernetes": { "cri_socket": self.socket() },
            "lxc": { "name_prefix": format!("{}-", self.name) },
            "sandbox": { "netns_dir": self.netns_dir() },
            "storage": { "root": self.root.join("state"), "run_dir": self.run },
            "images": { "registries": registries },
            "runtime_handlers": { "host": { "backend": "host" } },
            "network": { "conf_dir": self.root.join("cni"), "plugin_dirs": ["/usr/lib/cni", "/opt/cni/bin"] },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let path = self.config_file();
        fs::write(&path, format!("{config:#}")).with_context(|| format!("cannot write {path}"))
    }

    /// Writes the CNI configuration: a bridge of our own, with addresses nobody else here has.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write_network(&self) -> anyhow::Result<()> {
        let conflist = json!({
            "cniVersion": "1.0.0",
            "name": self.name,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.name,
                    "isGateway": true,
                    "ipMasq": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.root.join("ipam"),
                        "ranges": [[{ "subnet": free_subnet()? }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        });
        let path = self.network_file();
        fs::write(&path, conflist.to_string()).with_context(|| format!("cannot write {path}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.failed.load(Ordering::Relaxed) || std::thread::panicking() {
            eprintln!(
                "--- the daemon's log, {}\n{}",
                self.log_file(),
                self.log_end()
            );
        }
        if let Err(error) = sweep::sweep(&self.name) {
            eprintln!("cannot remove all of {}: {error:#}", self.name);
        }
    }
}

impl Machine {
    /// The last lines of the daemon's log.
    pub(crate) fn log_end(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// A subnet of 10.213.0.0/16 that no interface of this machine has.
fn free_subnet() -> anyhow::Result<String> {
    let taken = process::run("ip", &["-4", "-o", "address"], 10)?.success()?;
    let first = rand::random_range(0..=255);
    (0..=255)
        .map(|i| format!("10.213.{}.", (first + i) % 256))
        .find(|prefix| !taken.contains(prefix.as_str()))
        .map(|prefix| format!("{prefix}0/24"))
        .context("no subnet of 10.213.0.0/16 is free")
}
