//! A node like the users' own, as a virtual machine: Debian 13 with systemd as init, cgroup v2 alone and AppArmor.
//!
//! A container or a build machine is none of that. [`image`] makes the disk from Debian's packages, once; [`machine`]
//! starts QEMU on a copy-on-write overlay of it, which is thrown away at its end; [`ssh`] talks to it.
//!
//! What is under test lies on a second disk that is made at each start and mounted at `/opt/nexcage`: the daemon,
//! crictl, critest and the test images, which a registry of the node's own serves.

mod image;
mod machine;
mod share;
mod ssh;

use std::fs;

use anyhow::{Context as _, ensure};
use clap::Subcommand;

use crate::{cache, deps};
use image::Image;
use machine::Machine;

/// What the machine is made and run with.
const PACKAGES: &[(&str, &str)] = &[
    ("mmdebstrap", "makes a Debian system in a directory"),
    ("e2fsprogs", "mkfs.ext4, which makes disks of directories"),
    ("qemu-system-x86", "the virtual machine"),
    ("qemu-utils", "qemu-img: copy-on-write disks"),
    ("openssh-client", "ssh, scp and ssh-keygen"),
];

/// What to do with the node. There is one at a time.
#[derive(Subcommand)]
pub(crate) enum What {
    /// Make the disk image, if it is not in the cache.
    Build,
    /// Start the node, with a daemon built now, and wait until it can be used.
    Up,
    /// Build the daemon again and restart it in the running node; pods go on.
    Push,
    /// A shell in the node.
    Ssh,
    /// Run a command in the node; it ends as the command does.
    Run {
        /// The command, for the node's shell.
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Shut the node down and throw away all that was written in it.
    Down,
    /// The same, and remove the disk images.
    Clean,
}

/// Does it.
pub(crate) fn node(what: &What) -> anyhow::Result<()> {
    match what {
        What::Build => build().map(|image| println!("{}", image.disk())),
        What::Up => up(),
        What::Push => share::push(&Machine::running()?),
        What::Ssh => Machine::running()?.ssh().shell(),
        What::Run { command } => Machine::running()?.ssh().run(&command.join(" ")),
        What::Down => Machine::down(),
        What::Clean => clean(),
    }
}

fn build() -> anyhow::Result<Image> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the node's disk is made in a chroot and needs root: sudo -E cargo xtask node"
    );
    deps::install(PACKAGES)?;
    Image::build()
}

fn up() -> anyhow::Result<()> {
    if let Ok(machine) = Machine::running() {
        println!("the node is up already");
        return machine.wait_until_it_serves();
    }
    let image = build()?;
    let machine = Machine::start(&image)?;
    machine.wait_until_it_serves()
}

fn clean() -> anyhow::Result<()> {
    Machine::down()?;
    let root = cache::root();
    let entries = match root.read_dir_utf8() {
        Ok(entries) => entries,
        Err(_) => return Ok(()),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {root}"))?;
        // With a dot in front: what a build that was broken off has left.
        let name = entry.file_name().trim_start_matches('.');
        if name.starts_with(image::NAME) {
            let path = entry.path();
            fs::remove_dir_all(path).with_context(|| format!("cannot remove {path}"))?;
        }
    }
    Ok(())
}
