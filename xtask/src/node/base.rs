//! Debian's packages, unpacked and configured: what takes minutes, and changes rarely.

use std::process::Command;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use crate::cache::{self, Inputs};
use crate::run::{mortal_command, run};

/// Begins the names of all bases in the cache.
pub(super) const NAME: &str = "node-base";

/// Proxmox VE 9 is made of this release.
pub(super) const SUITE: &str = "trixie";
/// contrib has OpenZFS.
const COMPONENTS: &str = "main,contrib";
pub(super) const MIRROR: &str = "http://deb.debian.org/debian";

/// What the node consists of, beside the essential packages.
const PACKAGES: &[&str] = &[
    // A machine that boots and can be talked to.
    "systemd-sysv",
    "systemd-coredump",
    "dbus",
    "udev",
    "kmod",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    // OpenZFS is built for that kernel while the packages are installed.
    "linux-headers-cloud-amd64",
    "zfs-dkms",
    "zfsutils-linux",
    "zfs-zed",
    "initramfs-tools",
    "openssh-server",
    "iproute2",
    // What nexcage drives.
    "lxc",
    "uidmap",
    "crun",
    "conmon",
    "catatonit",
    "criu",
    "apparmor",
    "containernetworking-plugins",
    "golang-github-containers-common",
    "iptables",
    "nftables",
    "util-linux",
    // What nexcage is compared with.
    "containerd",
    "runc",
    // What tests use.
    "docker-registry",
    "busybox-static",
    "ca-certificates",
    "procps",
    // critest calls apparmor_parser through it.
    "sudo",
    "logrotate",
    // The tests of idmapped mounts make file systems of their own.
    "xfsprogs",
    "jq",
    "strace",
    "less",
];

/// A directory in the cache with a whole Debian.
pub(super) struct Base {
    dir: Utf8PathBuf,
}

impl Base {
    /// Makes it if it is not in the cache: five minutes on two cores, most of it OpenZFS's module.
    pub(super) fn build() -> anyhow::Result<Self> {
        let mut inputs = Inputs::new("node base 1").text(SUITE).text(COMPONENTS);
        for package in PACKAGES {
            inputs = inputs.text(package);
        }
        let dir = cache::directory(NAME, inputs, make)?;
        Ok(Self { dir })
    }

    /// Names what it was made from.
    pub(super) fn id(&self) -> &str {
        self.dir.file_name().unwrap_or_default()
    }

    /// The root directory, which nobody may change.
    pub(super) fn root(&self) -> Utf8PathBuf {
        self.dir.join("root")
    }
}

fn make(dir: &Utf8Path) -> anyhow::Result<()> {
    println!(
        "installing the node's packages and building OpenZFS for its kernel: five minutes, once"
    );
    let root = dir.join("root");
    run(contained("mmdebstrap")
        .args(["--variant=minbase", "--mode=root", "--format=directory"])
        .args(["--quiet", &format!("--components={COMPONENTS}")])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .args(
            ["doc", "man", "locale"]
                .map(|unread| format!("--dpkgopt=path-exclude=/usr/share/{unread}/*")),
        )
        .args([SUITE, root.as_str(), MIRROR]))?;
    has_zfs(&root)
}

/// A command whose mounts and processes end with this chore, however it ends.
///
/// mmdebstrap, killed or left alone, leaves `/proc` and `/sys` mounted in a tree that the next build is going to remove,
/// and a package manager at work there.
pub(super) fn contained(program: &str) -> Command {
    let mut contained = mortal_command("unshare");
    contained
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(program);
    contained
}

/// dkms reports a module that does not compile and goes on.
fn has_zfs(root: &Utf8Path) -> anyhow::Result<()> {
    let modules = root.join("usr/lib/modules");
    let kernels = modules
        .read_dir_utf8()
        .with_context(|| format!("cannot read {modules}"))?;
    let mut modules = kernels
        .flatten()
        .map(|kernel| kernel.path().join("updates/dkms"))
        .filter_map(|dir| dir.read_dir_utf8().ok())
        .flat_map(|dir| dir.flatten());
    modules
        .find(|module| module.file_name().starts_with("zfs.ko"))
        .map(drop)
        .with_context(|| format!("dkms has built no zfs module; see {root}/var/lib/dkms"))
}
