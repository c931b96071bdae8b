//! The daemon, its configuration, and what it says of itself.

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};

use super::OutputArgs;

/// Serve CRI on a Unix socket, until SIGTERM; pods go on running then
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nexcage daemon --config /etc/nexcage/config.json --dry-run")]
pub(in crate::cli) struct DaemonArgs {
    /// Configuration file [default: /etc/nexcage/config.json, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<Utf8PathBuf>,
    /// Check configuration and machine, then end
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// Show the version of this program and of the daemon
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nexcage version\n\nJSON: client.version, \
    server.{name, version, api_version} (null if the daemon does not answer)")]
pub(in crate::cli) struct VersionArgs {
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Show what the daemon says of itself: whether it is ready, its storage driver and why, its runtime handlers
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nexcage info\n\nJSON: conditions[].{name, ready, reason, message}, storage_driver, \
    storage_driver_reason, cgroup_driver, limits, root_dir, state_dir, \
    runtime_handlers[].{name, user_namespaces, recursive_read_only_mounts}\n\nExit code: 1 if it is not ready"
)]
pub(in crate::cli) struct InfoArgs {
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Check everything that pods need on this machine: one line each, with what is wrong and what to do
///
/// Nothing is changed, and no daemon needs to run.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nexcage doctor\n\nJSON: an array of check, state (ok, warning, failed), reason, remedy (null where there is nothing \
    to do, or the reason says it)\n\nExit code: 1 if anything has failed"
)]
pub(in crate::cli) struct DoctorArgs {
    /// Configuration file of the daemon [default: /etc/nexcage/config.json, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Check the configuration file, or show what can be in it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nexcage config check /etc/nexcage/config.json")]
pub(in crate::cli) struct ConfigArgs {
    #[command(subcommand)]
    pub(in crate::cli) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigAction {
    /// Say everything that is wrong with a configuration file
    #[command(after_help = "Example:\n  nexcage config check ./config.json")]
    Check {
        /// The file [default: /etc/nexcage/config.json, if it is there]
        file: Option<Utf8PathBuf>,
    },
    /// Print a file with every key at its default
    #[command(after_help = "Example:\n  nexcage config default > /etc/nexcage/config.json")]
    Default,
    /// Print the JSON schema of the file
    #[command(after_help = "Example:\n  nexcage config schema > nexcage.schema.json")]
    Schema,
}

/// Remove all pods, images and state of this machine's nexcage; its daemon must be stopped
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  systemctl stop nexcage && nexcage reset --yes\n\n\
    Containers get no time to end. The configuration file stays, and so does what pods' logs and volumes have elsewhere."
)]
pub(in crate::cli) struct ResetArgs {
    /// Configuration file of the daemon [default: /etc/nexcage/config.json, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<Utf8PathBuf>,
    /// Do it
    #[arg(long)]
    pub(in crate::cli) yes: bool,
}
