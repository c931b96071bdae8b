//! Every chore of the project, as `cargo xtask <chore>`.
//!
//! A chore prints what it does before it does it, may be interrupted and run again
//! at any time, and is quick when there is nothing left to do. What takes long to make
//! (crictl, critest, test images, cargo-deny) is kept in a cache outside of the tree, named by
//! the hash of what it was made from ([`cache`]).
//!
//! Start reading at [`test`]: it says which tiers of tests there are and what each
//! one needs; [`deps`] installs that, [`critools`] and [`images`] make the rest.

mod bench;
mod build;
mod cache;
mod compiled;
mod critools;
mod demo;
mod deps;
mod files;
mod fuzz;
mod go;
mod images;
mod node;
mod package;
mod registry;
mod run;
mod test;

use std::net::SocketAddr;
use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of nexcage", version)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what building and testing need: Debian packages, Rust components, cargo-deny, Go.
    Deps,
    /// Show nexcage's main job on real parts, as root, and leave nothing behind.
    Demo {
        /// A daemon that is built already; nothing is built or installed then.
        #[arg(long, value_name = "PROGRAM", requires = "registry")]
        daemon: Option<Utf8PathBuf>,
        /// A registry that has the test images already.
        #[arg(long, value_name = "ADDRESS", requires = "daemon")]
        registry: Option<SocketAddr>,
    },
    /// Run the fuzz targets, or one of them; see fuzz/README.md.
    Fuzz {
        /// Which target; all of them if left out.
        target: Option<String>,
        /// Seconds for each target.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Try this input alone, which made the target fail before.
        #[arg(long, value_name = "FILE", requires = "target")]
        input: Option<camino::Utf8PathBuf>,
    },
    /// Measure nexcage beside containerd and other tools, as root.
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
    /// Build the images that the system tests pull, as the storage of a local registry.
    Images,
    /// A virtual machine like the users' own nodes: Debian 13, systemd, cgroup v2, AppArmor, OpenZFS.
    Node(node::Node),
    /// Make the Debian package, in target/package.
    Package(package::Options),
    /// Test everything, or one tier of tests.
    Test {
        /// Which tier; all of them in order if left out.
        tier: Option<test::Tier>,
        /// For the system tier: run only the test targets of these names, such as `lifecycle`. For the node tier: only
        /// the steps of these names, such as `critest`.
        #[arg(long = "only", value_name = "NAME")]
        only: Vec<String>,
        /// For the node tier: as many pods and power cuts as the specification promises.
        #[arg(long)]
        full: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().chore {
        Chore::Deps => deps::install_all(),
        Chore::Demo { daemon, registry } => demo::play(daemon.zip(registry)),
        Chore::Bench { what } => bench::bench(&what),
        Chore::Fuzz {
            target,
            seconds,
            input,
        } => fuzz::fuzz(target.as_deref(), seconds, input.as_deref()),
        Chore::Images => images::storage().map(|dir| println!("{dir}")),
        Chore::Node(node) => node::node(&node),
        Chore::Package(options) => package::package(&options).map(|_| ()),
        Chore::Test { tier, only, full } => test::run_tiers(tier, &only, full),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
