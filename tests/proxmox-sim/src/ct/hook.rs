//! What LXC runs around a container: Proxmox's hooks before the start and after the stop, and the end of its systemd unit.
//!
//! Hooks run as root in the mount namespace of the monitor, which is its own.

use std::fs;
use std::io;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::mount::{insert, ranges};
use super::start::volumes;
use super::{Node, check_lock};
use crate::conf::{Conf, Source};
use crate::died::{Died, Outcome, io_died};
use crate::program::{has_systemd, run};
use crate::storage;

/// How long the end of a unit may take, as Proxmox's unit has it.
const STOP_LIMIT: Duration = Duration::from_secs(120);

impl Node {
    /// Before the start: mounts everything.
    ///
    /// # Errors
    ///
    /// The container must not start; LXC is told by the exit status.
    pub fn pre_start(&self, vmid: u32) -> Outcome {
        self.check_quorum()?;
        if !self.house.conf(vmid).exists() {
            return Ok(());
        }
        let conf = self.load(vmid)?;
        check_lock(&conf, true)?;
        for path in [format!("lxc/{vmid}"), format!("lxc.monitor/{vmid}")] {
            for dir in self.hierarchies.everywhere(&path) {
                remove_cgroups(&dir)?;
            }
        }
        let dir = self.house.container(vmid);
        let _ = fs::remove_file(dir.join("reboot"));
        let root = dir.join("rootfs");
        unmount_all(&root);
        self.mount_volumes(vmid, &conf, &root)?;
        let passthrough = dir.join("passthrough");
        fs::create_dir_all(&passthrough).map_err(io_died("mkdir", &passthrough))?;
        mount(
            "none",
            passthrough.as_std_path(),
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=8k"),
        )
        .map_err(|e| {
            io_died(
                "Could not mount tmpfs for device passthrough at",
                &passthrough,
            )(e.into())
        })
    }

    fn mount_volumes(&self, vmid: u32, conf: &Conf, root: &Utf8Path) -> Outcome {
        let ranges = ranges(&conf.current);
        let mut warnings = String::new();
        for (key, volume) in volumes(conf)? {
            if volume.idmap.is_some() && ranges.is_empty() {
                let words = "ignoring 'idmap' option unsupported by privileged container";
                warnings.push_str(&format!("'{key}' - {words}\n"));
            }
            let source = match &volume.source {
                Source::Bind(dir) => Utf8PathBuf::from(dir),
                Source::Volume(storage, name) => {
                    storage::activate(&self.storages().dataset(storage, name)?)?
                }
                Source::Device(device) => {
                    let words = format!("cannot mount device '{device}': not simulated");
                    return Err(Died::new(words));
                }
            };
            insert(&key, &volume, &source, root, &ranges)?;
        }
        let file = self.house.warnings(vmid);
        fs::write(&file, warnings).map_err(io_died("Failed to open", &file))
    }

    /// After the stop: unmounts everything, and puts into effect what waits for it.
    ///
    /// # Errors
    ///
    /// Also when the container was rebooted from within: LXC must stop it then, and not start it with the old configuration.
    pub fn post_stop(&self, vmid: u32, target: &str) -> Outcome {
        if !self.house.conf(vmid).exists() {
            return Ok(());
        }
        let mut conf = self.load(vmid)?;
        let dir = self.house.container(vmid);
        unmount_all(&dir.join("rootfs"));
        if !conf.pending.is_empty() || !conf.delete.is_empty() {
            conf.apply_pending();
            if let Err(died) = self.store(vmid, &conf) {
                eprintln!("{died}");
            }
            self.update_lxc_config(vmid, &conf)?;
        }
        if target == "reboot" {
            self.update_lxc_config(vmid, &conf)?;
            let trigger = dir.join("reboot");
            fs::write(&trigger, "")
                .map_err(io_died("failed to create reboot trigger file", &trigger))?;
            return Err("the container reboots".into());
        }
        Ok(())
    }

    /// The end of the unit: starts the container again if it was rebooted from within; stops it if the unit is stopped.
    ///
    /// # Errors
    ///
    /// A program cannot be started.
    pub fn stop_unit(&self, vmid: u32, exited: bool) -> Outcome {
        if !self.house.conf(vmid).exists() || !has_systemd() {
            return Ok(());
        }
        let trigger = self.house.container(vmid).join("reboot");
        if fs::remove_file(trigger).is_ok() {
            let unit = self.house.unit(vmid);
            // Waited for: when this process ends, systemd kills all that it has started.
            run("systemctl", &["--no-block", "restart", &unit], STOP_LIMIT)?;
        } else if !exited {
            let (name, lxc_path) = (vmid.to_string(), self.house.options().lxc_path.as_str());
            let arguments = ["-P", lxc_path, "-n", &name];
            run("lxc-stop", &arguments, STOP_LIMIT)?;
        }
        Ok(())
    }
}

/// Removes cgroups that were left, from the bottom up.
fn remove_cgroups(dir: &Utf8Path) -> Outcome {
    let entries = match dir.read_dir_utf8() {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_died("failed to open directory", dir)(e)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io_died("failed to remove directory", dir)),
    }
}

/// `umount --recursive`: everything at a directory and below it.
pub(crate) fn unmount_all(dir: &Utf8Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let below = format!("{dir}/");
    let mut points: Vec<_> = points
        .filter(|point| *point == dir.as_str() || point.starts_with(&below))
        .collect();
    // Mounted later is listed later, and has to go first.
    points.reverse();
    for point in points {
        let _ = unmount(point, UnmountFlags::NOFOLLOW);
    }
}
