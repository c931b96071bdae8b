//! A simulated Proxmox VE node for one contender: started with its defaults, in the contender's own directories.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};
use nexcage_tests::{Place, Proxmox};
use serde_json::Value;

use crate::contender::Kind;
use crate::stage;

/// How many numbers pods have: more than the addresses that they can have at one time.
pub(crate) const NUMBERS: u32 = 1000;

/// Where Proxmox, and nexcage with it, locks configurations of containers.
const LOCKS: &str = "/run/lock/lxc";

/// Type of the task that starts a container.
const START: &str = "vzstart";

/// A running simulator. Dropping it ends it.
pub(crate) struct Node {
    proxmox: Proxmox,
    /// What dpkg would answer on such a node.
    variable: (&'static str, String),
}

impl Node {
    /// Starts the contender's with the simulator's program.
    pub(crate) fn start(kind: Kind, program: &Utf8Path) -> anyhow::Result<Self> {
        let variable = Proxmox::packages(&stage::root(kind).join("dpkg"))?;
        let proxmox = Proxmox::start_program(program.to_owned(), place(kind), NUMBERS)
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self { proxmox, variable })
    }

    /// Sections of the daemon's configuration; `start` is `direct` or `api`.
    pub(crate) fn config(&self, start: &str) -> anyhow::Result<Value> {
        self.proxmox.config(start)
    }

    /// An environment variable that the daemon needs.
    pub(crate) fn variable(&self) -> (&str, &str) {
        (self.variable.0, &self.variable.1)
    }

    /// How long the tasks took that were begun since then and have started containers.
    pub(crate) fn starts_since(&self, time: SystemTime) -> anyhow::Result<Vec<Duration>> {
        let tasks = self.proxmox.tasks(START)?.into_iter();
        let since = tasks.filter(|task| task.begun >= time);
        Ok(since.map(|task| task.took).collect())
    }
}

/// Where the contender's simulator is.
pub(crate) fn place(kind: Kind) -> Place {
    Place {
        directory: stage::root(kind).join("proxmox-sim"),
        mount: stage::run(kind).join("pve"),
        lxc_path: stage::lxc_path(kind),
    }
}

/// Locks of containers that are still there: the only files of a contender's that are not in its directories.
pub(crate) fn locks(kind: Kind) -> Vec<Utf8PathBuf> {
    let containers = stage::lxc_path(kind).read_dir_utf8().into_iter().flatten();
    containers
        .flatten()
        .filter(|entry| entry.file_name().parse::<u32>().is_ok())
        .map(|entry| Utf8Path::new(LOCKS).join(format!("pve-config-{}.lock", entry.file_name())))
        .collect()
}
