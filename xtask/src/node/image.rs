//! The node's disk: Debian's packages, and the few files that make a node of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use super::base::Base;
use crate::cache::{self, Inputs};
use crate::run::{command, run};

/// Begins the names of all images in the cache.
pub(super) const NAME: &str = "node-disk";

/// Bytes of the root file system; the file is sparse.
const SIZE: u64 = 16 << 30;

/// Files of the node, each with its place.
const FILES: &[(&str, &str)] = &[
    (
        "etc/systemd/network/10-node.network",
        include_str!("files/10-node.network"),
    ),
    (
        "etc/systemd/system/nexcage.service",
        include_str!("files/nexcage.service"),
    ),
    (
        "etc/systemd/system/registry.service",
        include_str!("files/registry.service"),
    ),
    (
        "etc/systemd/system/pool.service",
        include_str!("files/pool.service"),
    ),
    (
        "etc/nexcage/registry.json",
        include_str!("files/registry.json"),
    ),
    ("etc/nexcage/config.json", include_str!("files/config.json")),
    (
        "etc/cni/net.d/10-pods.conflist",
        include_str!("files/pods.conflist"),
    ),
    ("etc/crictl.yaml", include_str!("files/crictl.yaml")),
    ("etc/hostname", "node\n"),
    ("etc/hosts", "127.0.0.1 localhost node\n"),
    ("etc/resolv.conf", "nameserver 10.0.2.3\n"),
    (
        "etc/fstab",
        // noatime: LXC must cope with it, and many nodes have it.
        "/dev/vda / ext4 rw,noatime 0 0\n\
         /dev/disk/by-id/virtio-share /opt/nexcage ext4 rw,noatime,nofail 0 0\n",
    ),
    // PAM would start a whole manager of services for each connection: seconds, where it is emulated. sshd's own PATH has
    // no sbin, where apparmor_parser is.
    (
        "etc/ssh/sshd_config.d/node.conf",
        "UsePAM no\nUseDNS no\nSetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
    ),
    // Empty, so that the first boot makes one.
    ("etc/machine-id", ""),
];

/// Programs of the node, each with its place.
const PROGRAMS: &[(&str, &str)] = &[("usr/local/sbin/node-pool", include_str!("files/node-pool"))];

/// Services that the packages start or that only take time.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "logrotate.timer",
    // Only started to be compared with.
    "containerd.service",
    "docker-registry.service",
    "lxc.service",
    "lxc-net.service",
    "systemd-networkd-wait-online.service",
];

const ENABLED: &[&str] = &[
    "systemd-networkd.service",
    "ssh.service",
    "pool.service",
    "registry.service",
    "nexcage.service",
];

/// A directory in the cache with a disk, the kernel and initrd that boot it, and the key that opens it.
#[derive(Clone)]
pub(super) struct Image {
    dir: Utf8PathBuf,
}

impl Image {
    /// Makes it if it is not in the cache: half a minute, and what [`Base::build`] takes.
    pub(super) fn build() -> anyhow::Result<Self> {
        let base = Base::build()?;
        let mut inputs = Inputs::new("node 2")
            .text(base.id())
            .text(&SIZE.to_string());
        for text in [MASKED, ENABLED].concat() {
            inputs = inputs.text(text);
        }
        for (path, content) in [FILES, PROGRAMS].concat() {
            inputs = inputs.text(path).text(content);
        }
        let dir = cache::directory(NAME, inputs, |dir| make(dir, &base))?;
        Ok(Self { dir })
    }

    /// Names what it was made from.
    pub(super) fn id(&self) -> &str {
        self.dir.file_name().unwrap_or_default()
    }

    /// The root file system, never written to: see `qemu-img create -b`.
    pub(super) fn disk(&self) -> Utf8PathBuf {
        self.dir.join("root.ext4")
    }

    pub(super) fn kernel(&self) -> Utf8PathBuf {
        self.dir.join("vmlinuz")
    }

    pub(super) fn initrd(&self) -> Utf8PathBuf {
        self.dir.join("initrd.img")
    }

    /// Opens root's account.
    pub(super) fn key(&self) -> Utf8PathBuf {
        self.dir.join("key")
    }

    /// The node's own key, by the name `node`, so that nobody else is taken for it.
    pub(super) fn known_hosts(&self) -> Utf8PathBuf {
        self.dir.join("known_hosts")
    }
}

fn make(dir: &Utf8Path, base: &Base) -> anyhow::Result<()> {
    println!("making the node's disk");
    let root = dir.join("root");
    run(command("cp").args(["-a", base.root().as_str(), root.as_str()]))?;
    write_files(&root)?;
    let systemctl = |verb: &str, units: &[&str]| {
        let quiet = ["--quiet", "--root", root.as_str(), verb];
        run(command("systemctl").args(quiet).args(units))
    };
    systemctl("mask", MASKED)?;
    systemctl("enable", ENABLED)?;
    make_keys(dir, &root)?;
    take_kernel(dir, &root)?;

    let disk = dir.join("root.ext4");
    fs::File::create_new(&disk)
        .and_then(|file| file.set_len(SIZE))
        .with_context(|| format!("cannot make {disk}"))?;
    run(command("mkfs.ext4")
        .args(["-q", "-F", "-L", "root", "-d", root.as_str()])
        .arg(&disk))?;
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {root}"))
}

fn write_files(root: &Utf8Path) -> anyhow::Result<()> {
    for (path, content) in FILES {
        write(&root.join(path), content, 0o644)?;
    }
    for (path, content) in PROGRAMS {
        write(&root.join(path), content, 0o755)?;
    }
    fs::create_dir_all(root.join("opt/nexcage")).context("cannot make /opt/nexcage")?;
    for program in ["nexcage", "crictl", "critest"] {
        let link = root.join("usr/local/bin").join(program);
        symlink(format!("/opt/nexcage/{program}"), &link)
            .with_context(|| format!("cannot make {link}"))?;
    }
    Ok(())
}

fn write(path: &Utf8Path, content: &str, mode: u32) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, content))
        .and_then(|()| fs::set_permissions(path, PermissionsExt::from_mode(mode)))
        .with_context(|| format!("cannot write {path}"))
}

/// A key for root, and the list of host keys that ssh compares.
fn make_keys(dir: &Utf8Path, root: &Utf8Path) -> anyhow::Result<()> {
    let key = dir.join("key");
    run(command("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "node", "-f"])
        .arg(&key))?;
    let ssh = root.join("root/.ssh");
    fs::create_dir_all(&ssh).with_context(|| format!("cannot make {ssh}"))?;
    fs::set_permissions(&ssh, PermissionsExt::from_mode(0o700))
        .and_then(|()| fs::copy(dir.join("key.pub"), ssh.join("authorized_keys")))
        .with_context(|| format!("cannot fill {ssh}"))?;
    let host_key = root.join("etc/ssh/ssh_host_ed25519_key.pub");
    let host_key =
        fs::read_to_string(&host_key).with_context(|| format!("cannot read {host_key}"))?;
    let known_hosts = dir.join("known_hosts");
    fs::write(&known_hosts, format!("node {host_key}"))
        .with_context(|| format!("cannot write {known_hosts}"))
}

/// The packages' names carry the version; there is one of each.
fn take_kernel(dir: &Utf8Path, root: &Utf8Path) -> anyhow::Result<()> {
    let boot = root.join("boot");
    for (prefix, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd.img")] {
        let entries = boot
            .read_dir_utf8()
            .with_context(|| format!("cannot read {boot}"))?;
        let found = entries
            .flatten()
            .find(|entry| entry.file_name().starts_with(prefix))
            .with_context(|| format!("there is no {prefix}* in {boot}"))?;
        fs::copy(found.path(), dir.join(name))
            .with_context(|| format!("cannot copy {}", found.path()))?;
    }
    Ok(())
}
