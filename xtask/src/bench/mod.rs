//! Benchmarks: installs, builds and starts what `nexcage-bench` needs, and runs it.

mod node;
mod storage;

use anyhow::ensure;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Subcommand;

use crate::registry::{Access, Registry};
use crate::run::{cargo, command, run, workspace};
use crate::{deps, images};

/// The program that measures.
const BENCH: &str = "nexcage-bench";

/// The package and the program that some contenders take for Proxmox VE. A release like all that is measured.
const PROXMOX_SIM: (&str, &str) = ("nexcage-proxmox-sim", "proxmox-sim");

/// What others are measured by.
const PACKAGES: [(&str, &str); 4] = [
    ("containerd", "what pods are compared with"),
    ("runc", "the OCI runtime of containerd"),
    ("skopeo", "copies images"),
    ("umoci", "unpacks images"),
];

/// What there is to measure.
#[derive(Subcommand)]
pub(crate) enum What {
    /// Pods beside containerd's, and beside the same steps by hand, also as containers of a simulated Proxmox: times and memory.
    Pods {
        /// Measured rounds, and pods at one time when memory is measured.
        #[arg(long, default_value_t = 50)]
        count: u16,
        /// Only these: nexcage, nexcage-zfs, nexcage-proxmox, nexcage-proxmox-api, containerd, floor.
        #[arg(long = "only", value_name = "CONTENDER")]
        only: Vec<String>,
        /// The ZFS pool of nexcage-zfs, in which a dataset is made for the time being.
        #[arg(long)]
        pool: Option<String>,
    },
    /// Checkpoints of a container's root filesystem on ZFS, and going back to them, beside `zfs` alone.
    Checkpoints {
        /// Measured rounds.
        #[arg(long, default_value_t = 50)]
        count: u16,
        /// The ZFS pool, in which a dataset is made for the time being.
        #[arg(long)]
        pool: String,
    },
    /// Pulls of 500 MB in 10 layers beside skopeo and umoci, and the memory that a layer of 2 GiB takes.
    Pull {
        /// Measured rounds.
        #[arg(long, default_value_t = 5)]
        rounds: u16,
    },
    /// In a node of its own: nexcage on ZFS and on overlay beside containerd with crun, by critest's benchmark and by that of
    /// `pods`; and `checkpoints`.
    Node {
        /// Only these; may be given several times.
        #[arg(long = "only", value_name = "BENCHMARK")]
        only: Vec<node::Benchmark>,
        /// Samples of each operation, and measured rounds.
        #[arg(long, default_value_t = 50)]
        count: u16,
        /// Pods at one time, each with a container, when memory and statistics are measured.
        #[arg(long, default_value_t = 50)]
        at_once: u16,
    },
}

/// Measures; the numbers are kept in `target/bench`.
pub(crate) fn bench(what: &What) -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "benchmarks start containers and need root: sudo -E cargo xtask bench"
    );
    deps::install_packages()?;
    match what {
        What::Pods { count, only, pool } => {
            let programs = prepare()?;
            let simulator = programs.join(PROXMOX_SIM.1);
            let mut measure = vec!["pods".to_owned(), format!("--count={count}")];
            measure.push(format!("--proxmox-sim={simulator}"));
            measure.extend(only.iter().map(|contender| format!("--only={contender}")));
            measure.extend(pool.iter().map(|pool| format!("--pool={pool}")));
            here(&programs, &measure, |_| images::storage())
        }
        What::Checkpoints { count, pool } => {
            let count = format!("--count={count}");
            let measure = ["checkpoints".to_owned(), count, format!("--pool={pool}")];
            here(&build()?, &measure, |_| images::storage())
        }
        What::Pull { rounds } => {
            let measure = ["pull".to_owned(), format!("--rounds={rounds}")];
            here(&prepare()?, &measure, storage::large_images)
        }
        What::Node {
            only,
            count,
            at_once,
        } => node::measure(&build()?, only, *count, *at_once),
    }
}

/// Installs and builds what is measured on this machine.
fn prepare() -> anyhow::Result<Utf8PathBuf> {
    deps::install(&PACKAGES)?;
    build()
}

/// On this machine, with what is in `programs`, and with a registry whose storage the program may help to make.
fn here(
    programs: &Utf8Path,
    measure: &[String],
    storage: impl FnOnce(&Utf8Path) -> anyhow::Result<Utf8PathBuf>,
) -> anyhow::Result<()> {
    let bench = programs.join(BENCH);
    let registry = Registry::start(&storage(&bench)?, Access::ReadOnly)?;
    run(command(bench)
        .args(measure)
        .args(["--nexcage", programs.join("nexcage").as_str()])
        .args(["--registry", &registry.address().to_string()])
        .args(["--results", target().join("bench").as_str()]))
}

/// Builds the daemon, the simulator and the benchmark for speed, and says in which directory they are.
fn build() -> anyhow::Result<Utf8PathBuf> {
    run(cargo()
        .args([
            "build",
            "--release",
            "--package",
            "nexcage",
            "--package",
            PROXMOX_SIM.0,
            "--package",
            BENCH,
        ])
        .args(["--target-dir", target().as_str()]))?;
    Ok(target().join("release"))
}

fn target() -> Utf8PathBuf {
    workspace().join("target")
}
