//! Containers: what `PVE::LXC` does with them. Everything here blocks, and is run by tasks and by `pct`.

mod change;
mod destroy;
mod hook;
mod mount;
mod start;
mod status;
mod stop;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

pub use change::Caller;
pub use change::Wanted;
pub(crate) use hook::unmount_all;
pub use status::CpuTimes;

use crate::conf::Conf;
use crate::died::{Died, Outcome, io_died};
use crate::house::House;
use crate::lxc::{self, Hierarchies};
use crate::program::wait_for;
use crate::storage::Storages;

/// How long Proxmox waits for the lock of a container's configuration.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// A node with its containers.
#[derive(Clone, Debug)]
pub struct Node {
    house: House,
    hierarchies: Hierarchies,
}

impl Node {
    /// The node of a simulator.
    pub fn new(house: House) -> Self {
        Self {
            house,
            hierarchies: Hierarchies::read(),
        }
    }

    /// The simulator.
    pub fn house(&self) -> &House {
        &self.house
    }

    /// Whether somebody listens on the container's command socket.
    pub fn is_running(&self, vmid: u32) -> bool {
        let active = lxc::active(&self.house.options().lxc_path);
        active.is_ok_and(|active| active.contains(&vmid))
    }

    /// Numbers of this node's containers, by their configurations.
    ///
    /// # Errors
    ///
    /// pmxcfs is not mounted.
    pub fn list(&self) -> Outcome<Vec<u32>> {
        let dir = self
            .house
            .pve(&format!("nodes/{}/lxc", self.house.options().node));
        let entries = dir
            .read_dir_utf8()
            .map_err(io_died("unable to open directory", &dir))?;
        let names = entries.flatten().map(|entry| entry.file_name().to_owned());
        let vmids = names.filter_map(|name| name.strip_suffix(".conf")?.parse().ok());
        let mut vmids: Vec<u32> = vmids.collect();
        vmids.sort_unstable();
        Ok(vmids)
    }

    /// A container's configuration. Warnings go to standard error, as Perl's do.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn load(&self, vmid: u32) -> Outcome<Conf> {
        let (conf, warnings) = Conf::read(vmid, &self.text(vmid)?);
        for warning in warnings {
            eprintln!("{warning}");
        }
        Ok(conf)
    }

    /// The configuration's text.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn text(&self, vmid: u32) -> Outcome<String> {
        fs::read_to_string(self.house.conf(vmid)).map_err(|_| {
            let name = self.house.conf_name(vmid);
            Died::new(format!("Configuration file '{name}' does not exist"))
        })
    }

    /// Writes a container's configuration: beside it, and then over it.
    ///
    /// # Errors
    ///
    /// There is no quorum, or the number is somebody else's.
    pub fn store(&self, vmid: u32, conf: &Conf) -> Outcome {
        let file = self.house.conf(vmid);
        self.replace(&file, &conf.write())
    }

    /// Writes a file of pmxcfs.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store).
    pub fn replace(&self, file: &camino::Utf8Path, text: &str) -> Outcome {
        let temporary = format!("{file}.tmp.{}", std::process::id());
        let written = File::create(&temporary).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(io_died("unable to open file", &temporary))?;
        fs::rename(&temporary, file).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            io_died("close (rename) atomic file", file)(error)
        })
    }

    /// Does something under the lock of a container's configuration.
    ///
    /// # Errors
    ///
    /// Somebody holds it for ten seconds; or what was done.
    pub fn locked<T>(&self, vmid: u32, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let path = self.house.lock(vmid);
        let file = File::options().append(true).create(true).open(&path);
        let file = file.map_err(|error| Died::new(format!("can't open file - {error}")))?;
        if file.try_lock().is_err() {
            eprintln!("trying to acquire lock...");
            let had = wait_for(LOCK_LIMIT, || file.try_lock().ok());
            had.ok_or_else(|| Died::new(format!("can't lock file '{path}' - got timeout")))?;
            eprintln!(" OK");
        }
        work()
    }

    /// Refuses what cannot be done without quorum, which Proxmox asks the link `local` about.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn check_quorum(&self) -> Outcome {
        let link = fs::symlink_metadata(self.house.pve("local"));
        match link.is_ok_and(|link| link.mode() & 0o200 != 0) {
            true => Ok(()),
            false => Err(Died::new("cluster not ready - no quorum?")),
        }
    }

    /// Where cgroups of a container may be, deepest first.
    pub fn cgroups(&self, vmid: u32) -> Vec<camino::Utf8PathBuf> {
        let paths = [
            format!("lxc/{vmid}/ns"),
            format!("lxc/{vmid}"),
            format!("lxc.monitor/{vmid}"),
        ];
        paths
            .iter()
            .flat_map(|path| self.hierarchies.everywhere(path))
            .collect()
    }

    fn storages(&self) -> Storages {
        let text = fs::read_to_string(self.house.pve("storage.cfg"));
        Storages::read(&text.unwrap_or_default())
    }
}

/// Refuses what cannot be done with a locked container. `mounted` does not lock starting and stopping.
fn check_lock(conf: &Conf, unless_mounted: bool) -> Outcome {
    match conf.current.get("lock") {
        Some("mounted") if unless_mounted => Ok(()),
        Some(lock) => Err(Died::new(format!("CT is locked ({lock})"))),
        None => Ok(()),
    }
}
