//! Where the simulator keeps things, and what it calls itself: everything below one directory, but for what has to be elsewhere.

use std::net::IpAddr;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

/// What may differ between simulators on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The name of this node.
    pub node: String,
    /// The name of the cluster; `None` is a node of its own.
    pub cluster: Option<String>,
    /// Other nodes of the cluster. They are never there: what is asked of them cannot be reached.
    pub peers: Vec<String>,
    /// Where pmxcfs is mounted: `/etc/pve`.
    pub mount: Utf8PathBuf,
    /// LXC's directory: `/var/lib/lxc`.
    pub lxc_path: Utf8PathBuf,
    /// Where containers' configurations are locked: `/run/lock/lxc`.
    pub lock_dir: Utf8PathBuf,
    /// Where standard error and warnings of containers are kept: `/run/pve`.
    pub run_dir: Utf8PathBuf,
    /// Where the API listens.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The systemd unit of a container, before `@<vmid>`: `pve-container`.
    pub unit: String,
}

/// A simulator's directory.
#[derive(Clone, Debug)]
pub struct House {
    dir: Utf8PathBuf,
    options: Options,
}

impl House {
    /// Makes the directory, or takes an existing one with new options.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn make(dir: &Utf8Path, options: Options) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
        let dir = dir.canonicalize_utf8()?;
        let file = dir.join("options.json");
        let text = serde_json::to_string_pretty(&options)?;
        std::fs::write(&file, text).with_context(|| format!("cannot write {file}"))?;
        let house = Self { dir, options };
        for below in [house.tasks_dir(), house.lxc_dir()] {
            std::fs::create_dir_all(&below).with_context(|| format!("cannot make {below}"))?;
        }
        std::fs::create_dir_all(&house.options.lock_dir)?;
        std::fs::create_dir_all(&house.options.run_dir)?;
        std::fs::create_dir_all(&house.options.lxc_path)?;
        Ok(house)
    }

    /// Opens the directory of a simulator that was started once.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn open(dir: &Utf8Path) -> anyhow::Result<Self> {
        let file = dir.join("options.json");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {file}: was a simulator started here?"))?;
        let options = serde_json::from_str(&text).with_context(|| format!("cannot read {file}"))?;
        let dir = dir.canonicalize_utf8()?;
        Ok(Self { dir, options })
    }

    /// The directory.
    pub fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What pmxcfs holds, in SQLite.
    pub fn database(&self) -> Utf8PathBuf {
        self.dir.join("config.db")
    }

    /// The socket of `proxmox-sim ctl`.
    pub fn control(&self) -> Utf8PathBuf {
        self.dir.join("ctl.sock")
    }

    /// How to misbehave.
    pub fn misbehaviour(&self) -> Utf8PathBuf {
        self.dir.join("misbehave.json")
    }

    /// The log of requests to the API.
    pub fn access_log(&self) -> Utf8PathBuf {
        self.dir.join("access.log")
    }

    /// Numbers of containers that were started here.
    pub fn containers(&self) -> Utf8PathBuf {
        self.dir.join("containers")
    }

    /// `/var/log/pve/tasks`.
    pub fn tasks_dir(&self) -> Utf8PathBuf {
        self.dir.join("tasks")
    }

    /// What Proxmox's package would put below `/usr/share/lxc/config`.
    pub fn lxc_dir(&self) -> Utf8PathBuf {
        self.dir.join("lxc")
    }

    /// A file of pmxcfs.
    pub fn pve(&self, path: &str) -> Utf8PathBuf {
        self.options.mount.join(path)
    }

    /// A container's configuration.
    pub fn conf(&self, vmid: u32) -> Utf8PathBuf {
        self.pve(&self.conf_name(vmid))
    }

    /// As Proxmox names it in messages.
    pub fn conf_name(&self, vmid: u32) -> String {
        format!("nodes/{}/lxc/{vmid}.conf", self.options.node)
    }

    /// The lock of a container's configuration.
    pub fn lock(&self, vmid: u32) -> Utf8PathBuf {
        self.options
            .lock_dir
            .join(format!("pve-config-{vmid}.lock"))
    }

    /// LXC's directory of a container.
    pub fn container(&self, vmid: u32) -> Utf8PathBuf {
        self.options.lxc_path.join(vmid.to_string())
    }

    /// Standard error of a container's `lxc-start`.
    pub fn stderr(&self, vmid: u32) -> Utf8PathBuf {
        self.options.run_dir.join(format!("ct-{vmid}.stderr"))
    }

    /// Warnings of a container's hooks.
    pub fn warnings(&self, vmid: u32) -> Utf8PathBuf {
        self.options.run_dir.join(format!("ct-{vmid}.warnings"))
    }

    /// The systemd unit of a container.
    pub fn unit(&self, vmid: u32) -> String {
        format!("{}@{vmid}.service", self.options.unit)
    }
}
