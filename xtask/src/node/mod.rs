//! A node like the users' own, as a virtual machine: Debian 13 with systemd as init, cgroup v2 alone, AppArmor and OpenZFS.
//!
//! A container or a build machine is none of that. [`base`] installs Debian's packages, once; [`image`] makes a disk of
//! them; [`qemu`] gets the emulator; [`saved`] boots a first machine and keeps it; [`machine`] starts machines from
//! there, on copy-on-write overlays that are thrown away at their end; [`ssh`] talks to them.
//!
//! What is under test lies on a second disk that is made at each start and mounted at `/opt/nexcage`: the daemon,
//! crictl, critest and the test images, which a registry of the node's own serves. A third disk has the pool `tank`.
//!
//! Nodes have names. `dev` is for people; the tests make one of their own ([`tier`]) and take it away.

mod base;
mod image;
mod kvm;
mod machine;
mod own;
mod qemu;
mod qmp;
mod saved;
mod share;
mod ssh;
pub(crate) mod tier;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};

use crate::files::remove_tree;
use crate::{cache, deps};
use image::Image;
use machine::{Machine, Owner, Start};
pub(crate) use own::Own;
use qemu::Qemu;
use saved::Saved;
pub(crate) use share::More;
use ssh::Ssh;

/// What the machine is made with.
const PACKAGES: &[(&str, &str)] = &[
    ("mmdebstrap", "makes a Debian system in a directory"),
    ("e2fsprogs", "mkfs.ext4, which makes disks of directories"),
    ("openssh-client", "ssh, scp and ssh-keygen"),
];

/// For telling a saved machine what it does not know: the time, and what is on the share disk.
const WAKING: Duration = Duration::from_secs(300);

/// Which node, and what to do with it.
#[derive(Args)]
pub(crate) struct Node {
    /// The node's name; there may be several at a time.
    #[arg(long, global = true, env = "NEXCAGE_NODE", default_value = "dev")]
    name: String,
    #[command(subcommand)]
    what: What,
}

/// What to do with the node.
#[derive(Subcommand)]
enum What {
    /// Make the disk image and boot it once, if that is not in the cache.
    Build,
    /// Start the node, with a daemon built now, and wait until it can be used.
    Up,
    /// Build the daemon again and restart it in the running node; pods go on.
    Push,
    /// A shell in the node.
    Ssh,
    /// Run a command in the node; fails if it fails.
    Run {
        /// The command, for the node's shell.
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Switch the node off and throw away all that was written in it.
    Down,
    /// The same for all nodes, and remove everything they are made of from the cache.
    Clean,
}

/// Does it.
pub(crate) fn node(node: &Node) -> anyhow::Result<()> {
    let dir = directory(&node.name)?;
    match &node.what {
        What::Build => Parts::build().map(drop),
        What::Up => up(&dir),
        What::Push => share::push(&reach(&dir)?, &dir),
        What::Ssh => reach(&dir)?.shell(),
        What::Run { command } => reach(&dir)?.run(&command.join(" ")),
        What::Down => down(&dir),
        What::Clean => clean(),
    }
}

/// Installs what is missing of what nodes are made with.
pub(crate) fn install_packages() -> anyhow::Result<()> {
    deps::install(PACKAGES)
}

/// What every node is made of.
struct Parts {
    qemu: Qemu,
    image: Image,
    /// None with KVM, where booting takes seconds anyhow.
    saved: Option<Saved>,
}

impl Parts {
    fn build() -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the node's disk is made in a chroot and needs root: sudo -E cargo xtask node"
        );
        install_packages()?;
        let qemu = Qemu::build()?;
        let image = Image::build()?;
        let saved = if kvm::works(&qemu, &image)? {
            None
        } else {
            println!(
                "KVM does not boot this kernel here: the node is emulated, about ten times slower"
            );
            Some(Saved::build(&qemu, &image)?)
        };
        Ok(Self { qemu, image, saved })
    }

    /// A new machine in `dir`, with `more` on its share disk, that serves.
    fn start(&self, dir: &Utf8Path, more: &More, owner: Owner) -> anyhow::Result<(Machine, Began)> {
        remove_tree(dir)?;
        fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
        let mut machine = Machine::at(dir.to_owned(), self.qemu.clone(), self.image.clone())?;
        share::make(&machine.share_disk(), more)?;
        let begun = Instant::now();
        match &self.saved {
            None => {
                machine.make_disks()?;
                machine.power_on(Start::Boot, owner)?;
            }
            Some(saved) => {
                saved.lend_disks(&machine)?;
                machine.power_on(Start::Restore(&saved.memory()), owner)?;
            }
        }
        machine.wait_until("it answers", "true")?;
        let answered_after = begun.elapsed();
        if self.saved.is_some() {
            wake(machine.ssh())?;
        }
        machine.wait_until_it_serves()?;
        println!(
            "the node answered after {answered_after:.1?} and is up after {:.1?}; its console is in {}",
            begun.elapsed(),
            machine.console()
        );
        let began = Began {
            at: begun,
            answered_after,
            from_memory: self.saved.is_some(),
        };
        Ok((machine, began))
    }
}

/// How a machine began.
struct Began {
    /// When its disks were about to be made.
    at: Instant,
    /// From then until a command ran in it.
    answered_after: Duration,
    /// Whether it goes on from a saved machine, and has not booted by itself.
    from_memory: bool,
}

/// Tells a saved machine what has changed since.
fn wake(node: &Ssh) -> anyhow::Result<()> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let line = format!(
        "date --set @{} >/dev/null && \
         systemctl start opt-nexcage.mount && systemctl start registry.service nexcage.service",
        now.as_secs()
    );
    node.run_within(&line, WAKING)
}

fn up(dir: &Utf8Path) -> anyhow::Result<()> {
    if let Some(node) = machine::reach(dir)? {
        ensure!(
            node.succeeds("systemctl is-active --quiet nexcage.service"),
            "the node is up already, but its daemon does not run: cargo xtask node run systemctl status nexcage"
        );
        println!("the node is up already");
        return Ok(());
    }
    let parts = Parts::build()?;
    parts.start(dir, &More::default(), Owner::Nobody).map(drop)
}

fn reach(dir: &Utf8Path) -> anyhow::Result<Ssh> {
    machine::reach(dir)?.context("the node is not up; start it: cargo xtask node up")
}

fn down(dir: &Utf8Path) -> anyhow::Result<()> {
    machine::switch_off(dir)?;
    remove_tree(dir)
}

fn clean() -> anyhow::Result<()> {
    for node in entries(&nodes())? {
        down(&node)?;
    }
    for entry in entries(&cache::root())? {
        // With a dot in front: what a build that was broken off has left.
        let name = entry.file_name().unwrap_or_default();
        let name = name.trim_start_matches('.');
        let ours = [base::NAME, image::NAME, qemu::NAME, saved::NAME];
        if ours.iter().any(|ours| name.starts_with(ours)) {
            machine::switch_off(&entry)?;
            remove_tree(&entry)?;
        }
    }
    Ok(())
}

/// Where the running nodes are, each in a directory of its name.
fn nodes() -> Utf8PathBuf {
    cache::root().join("nodes")
}

fn directory(name: &str) -> anyhow::Result<Utf8PathBuf> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(allowed) {
        bail!("a node's name has lower case letters, digits and hyphens: {name:?}");
    }
    Ok(nodes().join(name))
}

fn entries(dir: &Utf8Path) -> anyhow::Result<Vec<Utf8PathBuf>> {
    let entries = match dir.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {dir}")),
    };
    entries
        .map(|entry| Ok(entry?.into_path()))
        .collect::<std::io::Result<_>>()
        .with_context(|| format!("cannot read {dir}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names() {
        assert!(directory("dev").unwrap().as_str().ends_with("nodes/dev"));
        for bad in ["", "..", "a/b", "A", "a b"] {
            assert!(directory(bad).is_err(), "{bad}");
        }
    }
}
