//! The arguments.

use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand};

/// A Kubernetes container runtime whose pods are LXC containers.
#[derive(Debug, Parser)]
#[command(name = "nexcage", version)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve CRI on a Unix socket, until SIGTERM.
    Daemon(Daemon),
}

#[derive(Debug, Args)]
pub(super) struct Daemon {
    /// Configuration file [default: /etc/nexcage/config.json, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<Utf8PathBuf>,
    /// Check configuration and machine, say what would be used, and end.
    #[arg(long)]
    pub(super) dry_run: bool,
}
