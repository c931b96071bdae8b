//! The arguments.

use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::syntax::{Credentials, EnvVar, Port, Volume};

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
    #[arg(long, global = true, env = "NEXCAGE_SOCKET", value_name = "PATH")]
    pub(super) socket: Option<String>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Daemon(DaemonArgs),
    Version(VersionArgs),
    Info(InfoArgs),
    List(ListArgs),
    Stats(StatsArgs),
    Images(ImagesArgs),
    Pull(PullArgs),
    Logs(LogsArgs),
    Exec(ExecArgs),
    Run(Box<RunArgs>),
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

/// Serve CRI on a Unix socket, until SIGTERM; pods go on running then
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nexcage daemon --config /etc/nexcage/config.json --dry-run")]
pub(super) struct DaemonArgs {
    /// Configuration file [default: /etc/nexcage/config.json, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<Utf8PathBuf>,
    /// Check configuration and machine, then end
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Show the version of this program and of the daemon
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nexcage version\n\nJSON: client.version, \
    server.{name, version, api_version} (null if the daemon does not answer)")]
pub(super) struct VersionArgs {
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Show what the daemon says of itself: whether it is ready, its storage driver and why, its runtime handlers
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nexcage info\n\nJSON: conditions[].{name, ready, reason, message}, storage_driver, \
    storage_driver_reason, cgroup_driver, limits, root_dir, state_dir, \
    runtime_handlers[].{name, user_namespaces, recursive_read_only_mounts}\n\nExit code: 1 if it is not ready"
)]
pub(super) struct InfoArgs {
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// List pods with their containers
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nexcage list --all\n\nJSON: an array of pods, newest first: \
    id, name, namespace, uid, attempt, state (ready, not_ready), created_at (RFC 3339), \
    runtime_handler, ips, labels, containers; each container: id, name, attempt, image, image_id, \
    state (created, running, exited, unknown), created_at"
)]
pub(super) struct ListArgs {
    /// Also what has ended
    #[arg(short, long)]
    pub(super) all: bool,
    /// Do not shorten image ids
    #[arg(long)]
    pub(super) no_trunc: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Show what running containers use
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nexcage stats\n\nCPU is measured over one second, in percent of one CPU.\n\n\
    JSON: an array of containers: id, name, pod_id, pod, cpu_percent, memory_bytes, disk_bytes (null where not known)"
)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// List images
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nexcage images --output json\n\nJSON: an array of images: id, \
    repo_tags, repo_digests, size (bytes), pinned"
)]
pub(super) struct ImagesArgs {
    /// Do not shorten ids and digests
    #[arg(long)]
    pub(super) no_trunc: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Pull an image; prints its id
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage pull docker.io/library/debian:13\n  \
    pass registry | nexcage pull --creds-stdin registry.example/app:1\n\nJSON: image_id"
)]
pub(super) struct PullArgs {
    /// Image to pull: a name with a tag, a digest, or both
    #[arg(value_name = "REF")]
    pub(super) reference: String,
    /// Credentials for the registry; other users of this machine can see them in the list of processes
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "creds_stdin")]
    pub(super) creds: Option<Credentials>,
    /// Read USER:PASSWORD from standard input
    #[arg(long)]
    pub(super) creds_stdin: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Show what a container wrote to standard output and standard error
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  nexcage logs --tail 20 web/nginx\n  nexcage logs -f 3fa9c1")]
pub(super) struct LogsArgs {
    /// Container: its name, pod/container, or the beginning of its id
    pub(super) container: String,
    /// Go on until the container ends
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) tail: Option<usize>,
    /// Put the time before each line
    #[arg(short, long)]
    pub(super) timestamps: bool,
}

/// Run a command in a container, show its output and exit as it does
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nexcage exec web/nginx -- cat /etc/nginx/nginx.conf")]
pub(super) struct ExecArgs {
    /// Container: its name, pod/container, or the beginning of its id
    pub(super) container: String,
    /// The command and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "CMD"
    )]
    pub(super) command: Vec<String>,
    /// Kill it after this many seconds [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) timeout: Option<u32>,
    /// Not supported: there is no streaming server
    #[arg(short, long, hide = true)]
    pub(super) interactive: bool,
    /// Not supported: there is no streaming server
    #[arg(short, long, hide = true)]
    pub(super) tty: bool,
}

/// Run a container in a pod of its own, show its output and exit as it does
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage run --rm docker.io/library/debian:13 ls -l /\n  \
    nexcage run -d --name web -p 8080:80 -v /srv/www:/usr/share/nginx/html:ro docker.io/library/nginx\n\n\
    Pod and container have the same name. Ctrl-C stops the container. Without --rm the pod is kept \
    for `nexcage logs`, until `nexcage delete`.\n\nJSON (with --detach): pod_id, container_id, name"
)]
pub(super) struct RunArgs {
    /// Name of pod and container [default: from the image]
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Run the container in this pod, which runs already, instead of one of its own
    #[arg(long, value_name = "POD", conflicts_with_all = ["namespace", "publish", "network", "runtime_handler"])]
    pub(super) pod: Option<String>,
    /// Namespace of the pod
    #[arg(long, default_value = "default")]
    pub(super) namespace: String,
    /// Remove the pod afterwards; with --pod, the container
    #[arg(long, conflicts_with = "detach")]
    pub(super) rm: bool,
    /// Only start it, and print the pod's id
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(super) env: Vec<EnvVar>,
    /// Mount a directory or file of this machine
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    pub(super) volume: Vec<Volume>,
    /// Make a port reachable on this machine
    #[arg(short, long, value_name = "HOST:CONTAINER[/udp]")]
    pub(super) publish: Vec<Port>,
    /// The pod's network
    #[arg(long, value_enum, default_value = "pod")]
    pub(super) network: Network,
    /// Runtime handler, as a RuntimeClass names it
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "HANDLER"
    )]
    pub(super) runtime_handler: String,
    /// When to pull the image
    #[arg(long, value_enum, default_value = "missing")]
    pub(super) pull: PullPolicy,
    /// Image to run
    pub(super) image: String,
    /// Arguments for the image's entry point, or the command if it has none [default: the image's]
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(super) command: Vec<String>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Which network a pod is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Network {
    /// One of its own, by CNI.
    Pod,
    /// That of this machine.
    Host,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PullPolicy {
    /// Every time.
    Always,
    /// If it is not here.
    Missing,
    /// Not at all.
    Never,
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
pub(super) struct CheckpointArgs {
    /// A container: its name, pod/container, or the beginning of its id
    pub(super) container: String,
    /// Show the checkpoints, oldest first
    #[arg(short, long, conflicts_with = "remove")]
    pub(super) list: bool,
    /// Remove the checkpoint of this name
    #[arg(long, value_name = "NAME")]
    pub(super) remove: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Take a running container back to a checkpoint: it is stopped, its root filesystem restored, and started again
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage restore db/postgres\n  nexcage restore db/postgres checkpoint-1767225600"
)]
pub(super) struct RestoreArgs {
    /// A container: its name, pod/container, or the beginning of its id
    pub(super) container: String,
    /// The checkpoint [default: the latest]
    pub(super) checkpoint: Option<String>,
    /// What the container gets to end before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(super) timeout: u32,
}

/// Remove pods with all their containers, or single containers
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage delete web\n  nexcage delete --force 3fa9c1 web/sidecar\n\n\
    A name is first looked up among pods, then among containers."
)]
pub(super) struct DeleteArgs {
    /// Pods and containers: names, pod/container, or beginnings of ids
    #[arg(required = true, value_name = "POD|CONTAINER")]
    pub(super) targets: Vec<String>,
    /// Stop what is running
    #[arg(short, long)]
    pub(super) force: bool,
    /// With --force: what containers get to end before they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(super) timeout: u32,
}

/// Check the configuration file, or show what can be in it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nexcage config check /etc/nexcage/config.json")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    pub(super) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigAction {
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
pub(super) struct ResetArgs {
    /// Configuration file of the daemon [default: /etc/nexcage/config.json, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<Utf8PathBuf>,
    /// Do it
    #[arg(long)]
    pub(super) yes: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"nexcage").chain(args))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_sentence_and_an_example() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}: no sentence");
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(help.contains("Example"), "{name}: no example");
            command.get_subcommands().for_each(check);
        }
        Cli::command().get_subcommands().for_each(check);
    }

    #[test]
    fn a_command_in_a_container_keeps_its_own_options() {
        for args in [
            ["exec", "web", "--", "ls", "-l"].as_slice(),
            ["exec", "web", "ls", "-l"].as_slice(),
        ] {
            let Command::Exec(exec) = parse(args).unwrap().command else {
                panic!("not exec")
            };
            assert_eq!((exec.container.as_str(), exec.tty), ("web", false));
            assert_eq!(exec.command, ["ls", "-l"]);
        }
        let args = [
            "run", "--rm", "-e", "A=1", "debian", "sh", "-c", "exit 3", "--rm",
        ];
        let Command::Run(run) = parse(&args).unwrap().command else {
            panic!("not run")
        };
        assert!(run.rm && run.env.len() == 1);
        assert_eq!(run.command, ["sh", "-c", "exit 3", "--rm"]);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for args in [
            ["run", "--rm", "-d", "debian"].as_slice(),
            ["pull", "--creds", "a:b", "--creds-stdin", "debian"].as_slice(),
            ["run", "-p", "80", "debian"].as_slice(),
            ["run", "-v", "relative:/x", "debian"].as_slice(),
            ["exec", "web"].as_slice(),
            ["exec", "--timeout", "0", "web", "ls"].as_slice(),
            ["delete"].as_slice(),
            [].as_slice(),
        ] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }

    #[test]
    fn the_socket_is_taken_anywhere() {
        for args in [["--socket", "/s", "list"], ["list", "--socket", "/s"]] {
            assert_eq!(parse(&args).unwrap().socket.as_deref(), Some("/s"));
        }
    }
}
