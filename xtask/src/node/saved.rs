//! A machine that has booted, kept in the cache: a node starts from it in seconds, which matters where it is emulated.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use super::image::Image;
use super::machine::{self, Machine, Owner, Start};
use super::qemu::Qemu;
use super::share;
use crate::cache::{self, Inputs};
use crate::files::remove_file;

/// Begins the names of all saved machines in the cache.
pub(super) const NAME: &str = "node-state";

/// Half a gigabyte is written.
const SAVING: Duration = Duration::from_secs(300);

/// The disks and the memory of a machine that has booted, with nothing on the share disk.
pub(super) struct Saved {
    dir: Utf8PathBuf,
}

impl Saved {
    /// Boots one and saves it, if that has not been done for this image and this QEMU.
    pub(super) fn build(qemu: &Qemu, image: &Image) -> anyhow::Result<Self> {
        let inputs = Inputs::new("node state 1")
            .text(image.id())
            .text(&machine::hardware(qemu, image)?);
        let dir = cache::directory(NAME, inputs, |dir| make(dir, qemu, image))?;
        Ok(Self { dir })
    }

    /// Gives a machine disks that begin as the saved ones.
    pub(super) fn lend_disks(&self, machine: &Machine) -> anyhow::Result<()> {
        for disk in [machine.root_disk(), machine.pool_disk()] {
            let saved = self.dir.join(disk.file_name().unwrap_or_default());
            machine.overlay(&saved, "qcow2", &disk)?;
        }
        Ok(())
    }

    pub(super) fn memory(&self) -> Utf8PathBuf {
        self.dir.join("memory")
    }
}

fn make(dir: &Utf8Path, qemu: &Qemu, image: &Image) -> anyhow::Result<()> {
    println!("booting the node for the first time; its console is in {dir}/console.log");
    let mut machine = Machine::at(dir.to_owned(), qemu.clone(), image.clone())?;
    machine.make_disks()?;
    share::make_empty(&machine.share_disk())?;
    machine.power_on(Start::Boot, Owner::ThisThread)?;
    // It is `degraded`, because there is nothing to mount on the share disk.
    machine.wait_until(
        "it has booted",
        "systemctl is-system-running | grep -qE 'running|degraded'",
    )?;
    machine.ssh().run_within(
        "systemctl is-active --quiet pool.service && systemctl reset-failed && systemctl is-system-running --quiet \
         && sync && echo 3 >/proc/sys/vm/drop_caches",
        Duration::from_secs(120),
    )?;

    println!("saving the booted node");
    let mut monitor = machine.qmp()?;
    monitor.execute("stop", &json!({}))?;
    let uri = format!("exec:cat >{dir}/memory");
    monitor.execute("migrate", &json!({ "uri": uri }))?;
    monitor.wait_for("query-migrate", &["completed"], SAVING)?;
    // Also writes the disks' tables.
    monitor.execute("quit", &json!({}))?;
    machine.wait_until_it_ends(SAVING)?;
    for temporary in ["share.ext4", "pid", "port", "qmp", "key", "known_hosts"] {
        remove_file(&dir.join(temporary))?;
    }
    Ok(())
}
