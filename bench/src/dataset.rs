//! What there is on the pool: a dataset for one run, and what is done to one by hand.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use crate::process::{command, run};
use crate::stage;

/// A dataset with nothing in it that others need. Dropping it destroys it, with all that was made below it.
pub(crate) struct Dataset {
    name: String,
    destroyed: bool,
}

impl Dataset {
    /// Makes it in a pool, in the place of what an earlier run has left there.
    pub(crate) fn make(pool: &str) -> anyhow::Result<Self> {
        let dataset = Self {
            name: format!("{pool}/{}", stage::NAME),
            destroyed: false,
        };
        if run(command("zfs").args(["list", &dataset.name])).is_ok() {
            dataset.remove()?;
        }
        run(command("zfs")
            .args(["create", "-o", "canmount=off", "-o", "mountpoint=none"])
            .arg(&dataset.name))?;
        Ok(dataset)
    }

    /// `pool/name`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Destroys it; nobody may use it any more.
    pub(crate) fn destroy(mut self) -> anyhow::Result<()> {
        self.destroyed = true;
        self.remove()
    }

    /// With clones, wherever they are, and those that are still mounted.
    fn remove(&self) -> anyhow::Result<()> {
        run(command("zfs").args(["destroy", "-R", "-f", &self.name])).map(drop)
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        if self.destroyed {
            return;
        }
        if let Err(error) = self.remove() {
            eprintln!("cannot destroy the benchmark's dataset: {error:#}");
        }
    }
}

/// A dataset that stands on the same image as that of a container, and that nobody but the benchmark uses. It goes with
/// the [`Dataset`] that the image is in, which takes its clones along.
pub(crate) struct Twin {
    name: String,
    /// Where it is mounted.
    dir: Utf8PathBuf,
}

impl Twin {
    /// Makes and mounts it, beside the dataset `root` that `container` is in, so that the daemon of that does not see it.
    pub(crate) fn make(container: &str, root: &str, dir: &Utf8Path) -> anyhow::Result<Self> {
        let image = zfs(&["get", "-H", "-o", "value", "origin", container])?;
        let twin = Self {
            name: format!("{root}-twin"),
            dir: dir.to_owned(),
        };
        let mountpoint = format!("mountpoint={dir}");
        let options = ["-o", "canmount=noauto", "-o", &mountpoint];
        let both = [image.trim(), &twin.name];
        zfs(&[&["clone"], &options[..], &both].concat())?;
        twin.mount()?;
        Ok(twin)
    }

    /// Takes a snapshot, and takes the dataset back to it after something else was written. Says how long both took. It is not
    /// mounted when it is taken back; nor is a container's root filesystem.
    pub(crate) fn there_and_back(&self) -> anyhow::Result<[Duration; 2]> {
        let file = self.dir.join("bench");
        let write = |text| fs::write(&file, text).with_context(|| format!("cannot write {file}"));
        let snapshot = format!("{}@bench", self.name);
        write("kept\n")?;
        let there = timed(&["snapshot", &snapshot])?;
        write("lost\n")?;
        zfs(&["unmount", &self.name])?;
        let back = timed(&["rollback", &snapshot])?;
        self.mount()?;
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        ensure!(text == "kept\n", "{snapshot} was not gone back to: {text}");
        zfs(&["destroy", &snapshot])?;
        Ok([there, back])
    }

    fn mount(&self) -> anyhow::Result<()> {
        zfs(&["mount", &self.name]).map(drop)
    }
}

fn timed(arguments: &[&str]) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    zfs(arguments)?;
    Ok(begun.elapsed())
}

fn zfs(arguments: &[&str]) -> anyhow::Result<String> {
    let output = run(command("zfs").args(arguments))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
