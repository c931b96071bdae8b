//! Pods.

use clap::{Args, ValueEnum};
use nexcage_config::{Backend, Family};

use super::{OutputArgs, TargetArgs};
use crate::cli::syntax::{EnvVar, Port, Volume};

/// List pods with their containers
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage list --all\n  nexcage list --runtime lxc\n\nJSON: an array of pods, newest first: \
    id, name, namespace, uid, attempt, state (ready, not_ready), created_at (RFC 3339), \
    runtime_handler, ips, labels, containers; each container: id, name, attempt, image, image_id, \
    state (created, running, exited, unknown), created_at\n\n\
    With --runtime, the pods themselves: id, name, namespace, uid, attempt, state, created_at, runtime_handler, backend, \
    container (the name that lxc-ls shows, or the VMID; null where there is none), pid, ips, cpu_percent (of one CPU, measured over one \
    second), memory_bytes, edits[].{key, ours, theirs} (what somebody else has changed in the container's configuration), \
    ended (why, if nobody asked for it)"
)]
pub(in crate::cli) struct ListArgs {
    /// Also what has ended
    #[arg(short, long)]
    pub(in crate::cli) all: bool,
    /// Do not shorten image ids and names
    #[arg(long)]
    pub(in crate::cli) no_trunc: bool,
    /// Only pods of this kind, each with its container, what it uses, and who has changed it
    #[arg(long, value_enum, value_name = "KIND")]
    pub(in crate::cli) runtime: Option<PodRuntime>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// What kind of shell a pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum PodRuntime {
    /// An LXC container, plain or of Proxmox
    Lxc,
    /// A container of Proxmox
    Proxmox,
    /// Namespaces of the host, without LXC
    Host,
}

impl PodRuntime {
    /// Whether the pods of a backend are of this kind.
    pub(in crate::cli) fn includes(self, backend: Backend) -> bool {
        match self {
            Self::Lxc => backend.family() == Family::Lxc,
            Self::Proxmox => backend == Backend::Proxmox,
            Self::Host => backend == Backend::Host,
        }
    }
}

/// Show what running containers use
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nexcage stats\n\nCPU is measured over one second, in percent of one CPU.\n\n\
    JSON: an array of containers: id, name, pod_id, pod, cpu_percent, memory_bytes, disk_bytes (null where not known)"
)]
pub(in crate::cli) struct StatsArgs {
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// What a new pod and its container shall be.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PodArgs {
    /// Namespace of the pod
    #[arg(long, default_value = "default")]
    pub(in crate::cli) namespace: String,
    /// Set an environment variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(in crate::cli) env: Vec<EnvVar>,
    /// Mount a directory or file of this machine
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    pub(in crate::cli) volume: Vec<Volume>,
    /// Make a port reachable on this machine
    #[arg(short, long, value_name = "HOST:CONTAINER[/udp]")]
    pub(in crate::cli) publish: Vec<Port>,
    /// The pod's network
    #[arg(long, value_enum, default_value = "pod")]
    pub(in crate::cli) network: Network,
    /// What the pod shall be: lxc is what the daemon makes by default, if that is an LXC container, else a plain one
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        conflicts_with = "runtime_handler"
    )]
    pub(in crate::cli) runtime: Option<PodRuntime>,
    /// Runtime handler, as a RuntimeClass names it
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "HANDLER"
    )]
    pub(in crate::cli) runtime_handler: String,
    /// When to pull the image
    #[arg(long, value_enum, default_value = "missing")]
    pub(in crate::cli) pull: PullPolicy,
}

/// Run a container in a pod of its own, show its output and exit as it does
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage run --rm docker.io/library/debian:13 ls -l /\n  \
    nexcage run -d --name web -p 8080:80 -v /srv/www:/usr/share/nginx/html:ro docker.io/library/nginx\n\n\
    Pod and container have the same name. Ctrl-C stops the container. Without --rm the pod is kept \
    for `nexcage logs`, until `nexcage delete`.\n\nJSON (with --detach): pod_id, container_id, name"
)]
pub(in crate::cli) struct RunArgs {
    /// Name of pod and container [default: from the image]
    #[arg(long)]
    pub(in crate::cli) name: Option<String>,
    /// Run the container in this pod, which runs already, instead of one of its own
    #[arg(long, value_name = "POD",
        conflicts_with_all = ["namespace", "publish", "network", "runtime", "runtime_handler"])]
    pub(in crate::cli) pod: Option<String>,
    /// Remove the pod afterwards; with --pod, the container
    #[arg(long, conflicts_with = "detach")]
    pub(in crate::cli) rm: bool,
    /// Only start it, and print the pod's id
    #[arg(short, long)]
    pub(in crate::cli) detach: bool,
    #[command(flatten)]
    pub(in crate::cli) new: PodArgs,
    /// Image to run
    pub(in crate::cli) image: String,
    /// Arguments for the image's entry point, or the command if it has none [default: the image's]
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(in crate::cli) command: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Create a pod with one container, which waits for `nexcage start`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage create --runtime lxc --name web --image docker.io/library/nginx\n  \
    nexcage create --runtime proxmox --name db --image docker.io/library/postgres:17 --start -e POSTGRES_PASSWORD=x\n\n\
    Pod and container have the same name. The pod, and so the LXC container, runs at once; what it is made for does not. Without --image \
    the pod has no container: `nexcage run --pod NAME IMAGE` runs one in it.\n\n\
    JSON: pod_id, container_id (null without an image), name, state (created, running; null without an image)"
)]
pub(in crate::cli) struct CreateArgs {
    /// Name of pod and container
    #[arg(long)]
    pub(in crate::cli) name: String,
    /// Image of the container
    #[arg(long, value_name = "REF")]
    pub(in crate::cli) image: Option<String>,
    /// Start the container, too
    #[arg(long, requires = "image")]
    pub(in crate::cli) start: bool,
    #[command(flatten)]
    pub(in crate::cli) new: PodArgs,
    /// Arguments for the image's entry point, or the command if it has none [default: the image's]
    #[arg(last = true, requires = "image", value_name = "CMD")]
    pub(in crate::cli) command: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Start the containers of a pod that have been created, or a single one
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nexcage start --name web\n\nWhat runs already is left alone; what has ended is not started again.\n\n\
    JSON: pod_id, started (container ids)"
)]
pub(in crate::cli) struct StartArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Stop a pod with all its containers, or a single container; logs stay until `nexcage delete`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nexcage stop --name web --timeout 30\n\nWhat has stopped is not started again: delete it, and create it anew.\n\n\
    JSON: pod_id, stopped (container ids), pod_stopped"
)]
pub(in crate::cli) struct StopArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// What containers get to end before they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(in crate::cli) timeout: u32,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Which network a pod is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Network {
    /// One of its own, by CNI.
    Pod,
    /// That of this machine.
    Host,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum PullPolicy {
    /// Every time.
    Always,
    /// If it is not here.
    Missing,
    /// Not at all.
    Never,
}

/// Remove pods with all their containers, or single containers
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage delete web\n  nexcage delete --name web --force\n  nexcage delete --force 3fa9c1 web/sidecar\n\n\
    A name is first looked up among pods, then among containers.\n\n\
    JSON: an array of name, deleted, error (null if there is none)"
)]
pub(in crate::cli) struct DeleteArgs {
    /// Pods and containers: names, pod/container, or beginnings of ids
    #[arg(required_unless_present = "name", value_name = "POD|CONTAINER")]
    pub(in crate::cli) targets: Vec<String>,
    /// The same; may be given several times
    #[arg(long, value_name = "POD|CONTAINER")]
    pub(in crate::cli) name: Vec<String>,
    /// Stop what is running
    #[arg(short, long)]
    pub(in crate::cli) force: bool,
    /// With --force: what containers get to end before they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(in crate::cli) timeout: u32,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}
