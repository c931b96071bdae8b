//! What a run makes on the machine, with names of its own.

use std::fs::{self, File};

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, flock};

use crate::contender::Kind;
use crate::{network, proxmox, sweep};

/// Beginning of every name: directories, bridges, cgroups, LXC containers.
pub(crate) const NAME: &str = "nxbench";

/// The image of all containers; the registry is a mirror of docker.io.
pub(crate) const IMAGE: &str = "docker.io/library/busybox:latest";

/// Name of [`IMAGE`] in the registry.
pub(crate) const IMAGE_THERE: &str = "library/busybox:latest";

/// What containers run: something that says when it is ready to be asked to end, and then ends at once.
pub(crate) const APP: [&str; 3] = [
    "sh",
    "-c",
    "trap 'exit 0' TERM; echo ready; while true; do sleep 1000 & wait $!; done",
];

/// What is run in a running container.
pub(crate) const EXEC: [&str; 1] = ["true"];

/// What a reboot would keep.
const ROOT: &str = "/var/lib/nxbench";
/// What it would not.
const RUN: &str = "/run/nxbench";
/// LXC's lock files for containers below [`ROOT`], which it never removes.
const LXC_LOCKS: &str = "/run/lxc/lock/var/lib/nxbench";

/// Directory of a contender for what is large.
pub(crate) fn root(kind: Kind) -> Utf8PathBuf {
    Utf8Path::new(ROOT).join(kind.to_string())
}

/// Directory of a contender for sockets, mounts and namespaces. Short, since paths of sockets are limited.
pub(crate) fn run(kind: Kind) -> Utf8PathBuf {
    Utf8Path::new(RUN).join(kind.index().to_string())
}

/// Where a contender's LXC containers are.
pub(crate) fn lxc_path(kind: Kind) -> Utf8PathBuf {
    root(kind).join("lxc")
}

/// Where a contender's pods have their logs.
pub(crate) fn logs(kind: Kind) -> Utf8PathBuf {
    root(kind).join("logs")
}

/// What kubelet would name as the parent of a pod's cgroup.
pub(crate) fn cgroup_parent(kind: Kind) -> String {
    if systemd() {
        format!("{NAME}.slice")
    } else {
        format!("/{NAME}-{kind}")
    }
}

/// Whether systemd is init (sd_booted(3)), and so makes the cgroups of pods.
pub(crate) fn systemd() -> bool {
    Utf8Path::new("/run/systemd/system").is_dir()
}

/// The right to be the only run on this machine.
pub(crate) struct Stage {
    _lock: File,
}

impl Stage {
    /// Takes away what an earlier run has left and makes the directories.
    pub(crate) fn set() -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the benchmark starts containers: run it as root"
        );
        let path = "/run/lock/nxbench";
        let lock = File::create(path).with_context(|| format!("cannot make {path}"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .context("another benchmark runs on this machine")?;
        sweep_all()?;
        let stage = Self { _lock: lock };
        for kind in Kind::ALL {
            for dir in [root(kind).join("cni.d"), logs(kind), run(kind)] {
                fs::create_dir_all(&dir).with_context(|| format!("cannot make {dir}"))?;
            }
            let file = root(kind).join("cni.d/10-bench.conflist");
            fs::write(&file, network::conflist(kind).to_string())
                .with_context(|| format!("cannot write {file}"))?;
        }
        Ok(stage)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = sweep_all() {
            eprintln!("cannot remove all of the benchmark: {error:#}");
        }
    }
}

fn sweep_all() -> anyhow::Result<()> {
    let bridges = Kind::ALL.map(network::bridge);
    let dirs = [ROOT, RUN, LXC_LOCKS].map(Utf8PathBuf::from);
    let files: Vec<_> = Kind::ALL.into_iter().flat_map(proxmox::locks).collect();
    sweep::sweep(NAME, &dirs, &files, &bridges)
}
