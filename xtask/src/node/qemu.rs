//! QEMU: the same version everywhere.
//!
//! Debian 12's own, 7.2, emulates processor flags wrongly: after minutes of load the node's kernel finds impossible
//! values and panics. So QEMU comes from the release the node is made of, unpacked beside the node's disk and run
//! with its own libraries; nothing is installed.

use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};

use super::base::{MIRROR, SUITE, contained};
use crate::cache::{self, Inputs};
use crate::run::{command, output, run};

/// Begins the names of all of them in the cache.
pub(super) const NAME: &str = "node-qemu";

const PACKAGES: &str = "qemu-system-x86,qemu-utils";

/// A directory in the cache with QEMU, its libraries and firmware.
#[derive(Clone)]
pub(super) struct Qemu {
    root: Utf8PathBuf,
}

impl Qemu {
    /// Unpacks it if it is not in the cache: half a minute.
    pub(super) fn build() -> anyhow::Result<Self> {
        let inputs = Inputs::new("node qemu 1").text(SUITE).text(PACKAGES);
        let dir = cache::directory(NAME, inputs, make)?;
        Ok(Self {
            root: dir.join("root"),
        })
    }

    /// The virtual machine.
    pub(super) fn system(&self) -> Command {
        let mut qemu = self.program("qemu-system-x86_64");
        for firmware in ["qemu", "seabios"] {
            qemu.arg("-L")
                .arg(self.root.join("usr/share").join(firmware));
        }
        qemu
    }

    /// Makes disks.
    pub(super) fn img(&self) -> Command {
        self.program("qemu-img")
    }

    /// What it calls itself.
    pub(super) fn version(&self) -> anyhow::Result<String> {
        output(self.system().arg("--version"))
    }

    fn program(&self, name: &str) -> Command {
        let mut loader = command(self.root.join("usr/lib64/ld-linux-x86-64.so.2"));
        loader
            .args(["--argv0", name, "--library-path"])
            .arg(self.root.join("usr/lib/x86_64-linux-gnu"))
            .arg(self.root.join("usr/bin").join(name));
        loader
    }
}

fn make(dir: &Utf8Path) -> anyhow::Result<()> {
    println!("unpacking QEMU");
    // Unpacked only: no package's script runs.
    run(contained("mmdebstrap")
        .args(["--variant=extract", "--mode=root", "--format=directory"])
        .args(["--quiet", &format!("--include={PACKAGES}")])
        .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
        .args([SUITE, dir.join("root").as_str(), MIRROR]))
}
