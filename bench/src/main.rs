//! Measures nexcage. `cargo xtask bench` builds this program, installs what it needs and runs it.
//!
//! `pods` puts contenders side by side in one run, the order changing from round to round: nexcage on overlay, on ZFS, and with pods as
//! containers of a simulated [`proxmox`], and containerd, through their sockets with the same client, and the same steps done by
//! hand, which is the least that LXC, CNI, overlayfs, conmon and crun allow. `critest` does it with the benchmark that critest has of its
//! own. `pull` does it for an image, nexcage against skopeo and umoci. `checkpoints` does it for states of a container's root
//! filesystem that are kept and gone back to, nexcage on ZFS against `zfs`.
//!
//! [`stage`] is everything that a run makes on the machine: a directory, a bridge for each contender, cgroups, all
//! with names of the benchmark's own, so that a run that was killed is swept away by the next one.
//! A [`contender`] knows one thing: a pod's life in steps that are timed by [`pods`].
//!
//! What is printed goes to standard output; the numbers of every round go to a JSON file.

mod checkpoints;
mod containerd;
mod contender;
mod cri;
mod critest;
mod dataset;
mod floor;
mod generate;
mod memory;
mod network;
mod nexcage;
mod pods;
mod process;
mod programs;
mod proxmox;
mod pull;
mod report;
mod stage;
mod stats;
mod summary;
mod sweep;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::bail;
use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};

use contender::Kind;

#[derive(Parser)]
#[command(name = "nexcage-bench", about = "Measures nexcage")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Pods: time to running, ExecSync, time to removed, memory.
    Pods {
        #[command(flatten)]
        contest: Contest,
        /// Measured rounds.
        #[arg(long, default_value_t = 50)]
        count: u16,
        /// Pods at one time when memory and statistics are measured; as many as rounds if left out.
        #[arg(long)]
        at_once: Option<u16>,
    },
    /// Operations on pods, containers and images, as critest measures them.
    Critest {
        #[command(flatten)]
        contest: Contest,
        /// The critest program.
        #[arg(long)]
        critest: Utf8PathBuf,
        /// Samples of each operation.
        #[arg(long, default_value_t = 50)]
        count: u16,
    },
    /// Checkpoints of a container's root filesystem on ZFS: time to keep one, and to go back to it.
    Checkpoints {
        #[command(flatten)]
        run: Run,
        /// The pool; a dataset is made there and destroyed in the end.
        #[arg(long)]
        pool: String,
        /// Measured rounds.
        #[arg(long, default_value_t = 50)]
        count: u16,
    },
    /// Pulls of a large image, and of one large layer.
    Pull {
        #[command(flatten)]
        run: Run,
        /// Measured rounds.
        #[arg(long, default_value_t = 5)]
        rounds: u16,
    },
    /// Writes the images of `pull` as an OCI layout.
    Generate {
        /// Directory to fill.
        layout: Utf8PathBuf,
    },
}

/// What every run needs.
#[derive(clap::Args)]
struct Run {
    /// The nexcage program.
    #[arg(long)]
    nexcage: Utf8PathBuf,
    /// The local registry.
    #[arg(long)]
    registry: SocketAddr,
    /// Directory for the JSON file.
    #[arg(long)]
    results: Utf8PathBuf,
}

/// Who is measured, and how they are set up.
#[derive(clap::Args)]
struct Contest {
    #[command(flatten)]
    run: Run,
    /// Contenders; all that there can be if left out.
    #[arg(long = "only", value_name = "CONTENDER")]
    only: Vec<Kind>,
    /// The pool of the contender nexcage-zfs; its dataset is made there and destroyed in the end.
    #[arg(long)]
    pool: Option<String>,
    /// The program of the Proxmox simulator, for the contenders nexcage-proxmox and nexcage-proxmox-api.
    #[arg(long)]
    proxmox_sim: Option<Utf8PathBuf>,
    /// The OCI runtime of containerd, by the name of its program.
    #[arg(long, default_value = "runc")]
    containerd_runtime: String,
}

impl Contest {
    /// Who takes part, of those who can.
    fn kinds(&self, able: &[Kind]) -> anyhow::Result<Vec<Kind>> {
        if self.only.is_empty() {
            let possible = |kind: &Kind| match kind {
                Kind::NexcageZfs => self.pool.is_some(),
                Kind::NexcageProxmox | Kind::NexcageProxmoxApi => self.proxmox_sim.is_some(),
                Kind::Nexcage | Kind::Containerd | Kind::Floor => true,
            };
            return Ok(able.iter().copied().filter(possible).collect());
        }
        if let Some(unable) = self.only.iter().find(|kind| !able.contains(kind)) {
            bail!("{unable} has no part in this");
        }
        Ok(self.only.clone())
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match Cli::parse().what {
                What::Pods {
                    contest,
                    count,
                    at_once,
                } => pods::bench(&contest, count, at_once.unwrap_or(count)).await,
                What::Critest {
                    contest,
                    critest,
                    count,
                } => critest::bench(&contest, &critest, count).await,
                What::Checkpoints { run, pool, count } => {
                    checkpoints::bench(&run, &pool, count).await
                }
                What::Pull { run, rounds } => pull::bench(&run, rounds).await,
                What::Generate { layout } => generate::layout(&layout),
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contest(arguments: &[&str]) -> Contest {
        let always = [
            "--nexcage=/n",
            "--registry=127.0.0.1:5000",
            "--results=/r",
            "--critest=/c",
        ];
        let line = ["nexcage-bench", "critest"]
            .into_iter()
            .chain(always)
            .chain(arguments.iter().copied());
        match Cli::try_parse_from(line).unwrap().what {
            What::Critest { contest, .. } => contest,
            _ => unreachable!(),
        }
    }

    #[test]
    fn checkpoints_are_measured_on_a_pool() {
        let always = [
            "nexcage-bench",
            "checkpoints",
            "--nexcage=/n",
            "--results=/r",
        ];
        let line = always.into_iter().chain(["--registry=127.0.0.1:5000"]);
        assert!(Cli::try_parse_from(line.clone()).is_err());
        let parsed = Cli::try_parse_from(line.chain(["--pool=tank", "--count=7"]));
        match parsed.unwrap().what {
            What::Checkpoints { pool, count, .. } => {
                assert_eq!((pool.as_str(), count), ("tank", 7));
            }
            _ => unreachable!(),
        }
    }

    #[test]
    fn who_cannot_take_part_is_left_out() {
        let able = Kind::SERVERS;
        let kinds = |arguments: &[&str]| contest(arguments).kinds(&able);
        assert_eq!(kinds(&[]).unwrap(), [Kind::Nexcage, Kind::Containerd]);
        assert_eq!(kinds(&["--pool=tank", "--proxmox-sim=/s"]).unwrap(), able);
        let proxmox = [
            Kind::Nexcage,
            Kind::NexcageProxmox,
            Kind::NexcageProxmoxApi,
            Kind::Containerd,
        ];
        assert_eq!(kinds(&["--proxmox-sim=/s"]).unwrap(), proxmox);
        assert_eq!(kinds(&["--only=nexcage-zfs"]).unwrap(), [Kind::NexcageZfs]);
        assert!(kinds(&["--only=floor"]).is_err());
    }
}
