//! Measures nexcage. `cargo xtask bench` builds this program, installs what it needs and runs it.
//!
//! `pods` puts three contenders side by side in one run, the order changing from round to round: nexcage and
//! containerd through their sockets with the same client, and the same steps done by hand, which is the least that
//! LXC, CNI, overlayfs, conmon and crun allow. `pull` does the same for an image, nexcage against skopeo and umoci.
//!
//! [`stage`] is everything that a run makes on the machine: a directory, a bridge for each contender, cgroups, all
//! with names of the benchmark's own, so that a run that was killed is swept away by the next one.
//! A [`contender`] knows one thing: a pod's life in steps that are timed by [`pods`].
//!
//! What is printed goes to standard output; the numbers of every round go to a JSON file.

mod containerd;
mod contender;
mod cri;
mod floor;
mod generate;
mod memory;
mod network;
mod nexcage;
mod pods;
mod process;
mod pull;
mod report;
mod stage;
mod summary;
mod sweep;

use std::net::SocketAddr;
use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};

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
        run: Run,
        /// Measured rounds, and pods at one time when memory is measured.
        #[arg(long, default_value_t = 50)]
        count: u16,
        /// Contenders; all of them if left out.
        #[arg(long = "only", value_name = "CONTENDER")]
        only: Vec<contender::Kind>,
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

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match Cli::parse().what {
                What::Pods { run, count, only } => pods::bench(&run, count, &only).await,
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
