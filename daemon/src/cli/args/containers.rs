//! Containers.

use clap::Args;

use super::{OutputArgs, TargetArgs};

/// Show what a container wrote to standard output and standard error
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage logs --tail 20 web/nginx\n  nexcage logs -f 3fa9c1\n  nexcage logs --name web\n\n\
    A pod with one container may stand for it.\n\n\
    JSON: one object on each line: time (RFC 3339), stream (stdout, stderr), partial (the line goes on in the next one of the same \
    stream), text; time and stream are null for what is no line of a CRI log"
)]
pub(in crate::cli) struct LogsArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// Go on until the container ends
    #[arg(short, long)]
    pub(in crate::cli) follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    pub(in crate::cli) tail: Option<usize>,
    /// Put the time before each line
    #[arg(short, long)]
    pub(in crate::cli) timestamps: bool,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Run a command in a container, show its output and exit as it does
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nexcage exec web/nginx -- cat /etc/nginx/nginx.conf")]
pub(in crate::cli) struct ExecArgs {
    /// Container: its name, pod/container, or the beginning of its id
    pub(in crate::cli) container: String,
    /// The command and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "CMD"
    )]
    pub(in crate::cli) command: Vec<String>,
    /// Kill it after this many seconds [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) timeout: Option<u32>,
    /// Not supported: there is no streaming server
    #[arg(short, long, hide = true)]
    pub(in crate::cli) interactive: bool,
    /// Not supported: there is no streaming server
    #[arg(short, long, hide = true)]
    pub(in crate::cli) tty: bool,
}

/// Keep the state of a container's root filesystem, list what was kept, or remove it
///
/// Needs the storage driver zfs: a checkpoint is a snapshot. It is taken at once and disturbs nobody; what the container has
/// not written to its root filesystem by then, in memory or on volumes, is not in it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage checkpoint db/postgres\n  nexcage checkpoint db/postgres --list\n  \
    nexcage checkpoint db/postgres --remove checkpoint-1767225600\n\nJSON: {name, created_at, bytes}; with --list a list of them"
)]
pub(in crate::cli) struct CheckpointArgs {
    /// A container: its name, pod/container, or the beginning of its id
    pub(in crate::cli) container: String,
    /// Show the checkpoints, oldest first
    #[arg(short, long, conflicts_with = "remove")]
    pub(in crate::cli) list: bool,
    /// Remove the checkpoint of this name
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) remove: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Take a running container back to a checkpoint: it is stopped, its root filesystem restored, and started again
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage restore db/postgres\n  nexcage restore db/postgres checkpoint-1767225600"
)]
pub(in crate::cli) struct RestoreArgs {
    /// A container: its name, pod/container, or the beginning of its id
    pub(in crate::cli) container: String,
    /// The checkpoint [default: the latest]
    pub(in crate::cli) checkpoint: Option<String>,
    /// What the container gets to end before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(in crate::cli) timeout: u32,
}
