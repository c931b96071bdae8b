//! The arguments.

mod containers;
mod images;
mod node;
mod pods;
#[cfg(test)]
mod tests;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use containers::CheckpointArgs;
pub(super) use containers::ExecArgs;
pub(super) use containers::LogsArgs;
pub(super) use containers::RestoreArgs;
pub(super) use images::ImagesArgs;
pub(super) use images::PullArgs;
pub(super) use node::ConfigAction;
pub(super) use node::ConfigArgs;
pub(super) use node::DaemonArgs;
pub(super) use node::DoctorArgs;
pub(super) use node::InfoArgs;
pub(super) use node::ResetArgs;
pub(super) use node::VersionArgs;
pub(super) use pods::CreateArgs;
pub(super) use pods::DeleteArgs;
pub(super) use pods::ListArgs;
pub(super) use pods::Network;
pub(super) use pods::PodArgs;
pub(super) use pods::PodRuntime;
pub(super) use pods::PullPolicy;
pub(super) use pods::RunArgs;
pub(super) use pods::StartArgs;
pub(super) use pods::StatsArgs;
pub(super) use pods::StopArgs;

/// A Kubernetes container runtime whose pods are LXC containers.
#[derive(Debug, Parser)]
#[command(
    name = "nexcage",
    version,
    propagate_version = true,
    subcommand_required = true
)]
pub(super) struct Cli {
    /// Socket of the daemon, or of any CRI runtime [default: kubernetes.cri_socket of
    /// /etc/nexcage/config.json, which is /run/nexcage/nexcage.sock]
    #[arg(
        long,
        global = true,
        env = "NEXCAGE_SOCKET",
        hide_env_values = true,
        value_name = "PATH"
    )]
    pub(super) socket: Option<String>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Daemon(DaemonArgs),
    Version(VersionArgs),
    Info(InfoArgs),
    Doctor(DoctorArgs),
    List(ListArgs),
    Stats(StatsArgs),
    Images(ImagesArgs),
    Pull(PullArgs),
    Logs(LogsArgs),
    Exec(ExecArgs),
    Run(Box<RunArgs>),
    Create(Box<CreateArgs>),
    Start(StartArgs),
    Stop(StopArgs),
    Checkpoint(CheckpointArgs),
    Restore(RestoreArgs),
    Delete(DeleteArgs),
    Config(ConfigArgs),
    Reset(ResetArgs),
}

/// What the answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs: keys in snake_case that stay as they are.
    Json,
}

/// How to show it.
#[derive(Debug, Clone, Args)]
pub(super) struct OutputArgs {
    /// What the answer looks like
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub(super) output: Format,
}

/// What to do it to.
#[derive(Debug, Clone, Args)]
pub(super) struct TargetArgs {
    /// A pod, or a container: its name, pod/container, or the beginning of its id
    #[arg(
        value_name = "POD|CONTAINER",
        required_unless_present = "name",
        conflicts_with = "name"
    )]
    target: Option<String>,
    /// The same
    #[arg(long, value_name = "POD|CONTAINER")]
    name: Option<String>,
}

impl TargetArgs {
    /// What was given; one of the two is.
    pub(super) fn name(&self) -> &str {
        let given = self.name.as_ref().or(self.target.as_ref());
        given.map_or("", String::as_str)
    }
}
