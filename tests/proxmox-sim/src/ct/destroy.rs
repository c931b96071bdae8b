//! Removing a container, and taking its lock away.

use std::fs;

use super::start::volumes;
use super::{Node, check_lock};
use crate::conf::{Conf, Source};
use crate::died::{Died, Outcome, io_died};
use crate::storage;

impl Node {
    /// What is checked before the task `vzdestroy` begins.
    ///
    /// # Errors
    ///
    /// The container is protected, locked or running.
    pub fn check_destroy(&self, vmid: u32, force: bool) -> Outcome {
        let conf = self.load(vmid)?;
        if conf.current.is("protection") {
            let words = format!("can't remove CT {vmid} - protection mode enabled");
            return Err(Died::new(words));
        }
        check_lock(&conf, false)?;
        if !force && self.is_running(vmid) {
            let words = format!("unable to destroy CT {vmid} - container is running");
            return Err(Died::new(words));
        }
        Ok(())
    }

    /// The task `vzdestroy`. What LXC and Proxmox put into the container's directory stays there, as on a real node.
    ///
    /// # Errors
    ///
    /// In Proxmox's words.
    pub fn destroy(&self, vmid: u32, force: bool) -> Outcome {
        self.locked(vmid, || {
            self.check_destroy(vmid, force)?;
            if self.is_running(vmid) {
                eprintln!("forced to stop CT {vmid} before destroying!");
                self.kill(vmid)?;
            }
            let conf = self.load(vmid)?;
            for (_, volume) in volumes(&conf)? {
                if let Source::Volume(storage, name) = &volume.source {
                    storage::destroy(&self.storages().dataset(storage, name)?)?;
                }
            }
            let dir = self.house.container(vmid);
            // Each fails if something is left, and that is all right.
            let _ = fs::remove_dir(dir.join("rootfs"));
            let _ = fs::remove_file(dir.join("config"));
            let _ = fs::remove_dir(&dir);
            let mut gone = Conf::default();
            let destroyed = ("lock".to_owned(), "destroyed".to_owned());
            gone.current.values.extend([destroyed]);
            self.store(vmid, &gone)?;
            let file = self.house.conf(vmid);
            fs::remove_file(&file).map_err(io_died("unable to remove", &file))
        })
    }

    /// `pct unlock`.
    ///
    /// # Errors
    ///
    /// There is no lock.
    pub fn unlock(&self, vmid: u32) -> Outcome {
        self.locked(vmid, || {
            let mut conf = self.load(vmid)?;
            let had = conf.current.values.remove("lock");
            had.ok_or("no lock found trying to remove any lock")?;
            self.store(vmid, &conf)
        })
    }
}
