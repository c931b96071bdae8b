//! Benchmarks: installs, builds and starts what `nexcage-bench` needs, and runs it.

mod storage;

use anyhow::ensure;
use camino::Utf8PathBuf;
use clap::Subcommand;

use crate::registry::{Access, Registry};
use crate::run::{cargo, command, run, workspace};
use crate::{deps, images};

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
    /// Pods beside containerd's, and beside the same steps by hand: times and memory.
    Pods {
        /// Measured rounds, and pods at one time when memory is measured.
        #[arg(long, default_value_t = 50)]
        count: u16,
        /// Only these: nexcage, containerd, floor.
        #[arg(long = "only", value_name = "CONTENDER")]
        only: Vec<String>,
    },
    /// Pulls of 500 MB in 10 layers beside skopeo and umoci, and the memory that a layer of 2 GiB takes.
    Pull {
        /// Measured rounds.
        #[arg(long, default_value_t = 5)]
        rounds: u16,
    },
}

/// Measures; the numbers are kept in `target/bench`.
pub(crate) fn bench(what: &What) -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "benchmarks start containers and need root: sudo -E cargo xtask bench"
    );
    deps::install_packages()?;
    deps::install(&PACKAGES)?;
    let programs = build()?;
    let bench = programs.join("nexcage-bench");
    let storage = match what {
        What::Pods { .. } => images::storage()?,
        What::Pull { .. } => storage::large_images(&bench)?,
    };
    let registry = Registry::start(&storage, Access::ReadOnly)?;
    let mut measure = command(bench);
    match what {
        What::Pods { count, only } => {
            measure.args(["pods", "--count", &count.to_string()]);
            for contender in only {
                measure.args(["--only", contender]);
            }
        }
        What::Pull { rounds } => {
            measure.args(["pull", "--rounds", &rounds.to_string()]);
        }
    }
    run(measure
        .args(["--nexcage", programs.join("nexcage").as_str()])
        .args(["--registry", &registry.address().to_string()])
        .args(["--results", target().join("bench").as_str()]))
}

/// Builds the daemon and the benchmark for speed, and says in which directory they are.
fn build() -> anyhow::Result<Utf8PathBuf> {
    run(cargo()
        .args([
            "build",
            "--release",
            "--package",
            "nexcage",
            "--package",
            "nexcage-bench",
        ])
        .args(["--target-dir", target().as_str()]))?;
    Ok(target().join("release"))
}

fn target() -> Utf8PathBuf {
    workspace().join("target")
}
