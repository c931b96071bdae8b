//! Pod sandboxes as LXC containers: plain ones, and those that Proxmox VE shows.
//!
//! Both backends drive `lxc-start` and nothing else of LXC's tools: whether a container runs, and which process is its
//! init, is read from the pod's cgroups, which costs no process and stays true when LXC's files are gone.
//!
//! * `container` is what both have in common: LXC's configuration, a container's directory, its start and its end.
//! * `plain` is [`LxcBackend`]: containers named after the sandbox.
//! * `proxmox` is [`ProxmoxBackend`]: containers with a number and a configuration in Proxmox's cluster.
//! * `api` is what nexcage asks of Proxmox over HTTPS ([`Pve`]), and the client that does ([`ApiClient`]).
//!
//! A plain sandbox is started in four steps, and each leaves something that `stop` and `remove` find by the sandbox's id alone:
//!
//! 1. the directory `<lxc_path>/<prefix><id>` with a marker and the configuration, so that `lxc-ls` shows it;
//! 2. the pod's scope or cgroup ([`CgroupTree::run_first`](nexcage_sandbox::CgroupTree::run_first));
//! 3. `lxc-start` in it: it returns when the container runs, and leaves its monitor behind;
//! 4. limits and sysctls.
//!
//! There are no tasks and no channels. The monitor belongs to the pod's cgroup, not to this process: both may die
//! without the other. When the monitor dies, the kernel kills the init (`PR_SET_PDEATHSIG`, set by LXC); when the init
//! ends, a hook in the configuration kills the app containers.
//!
//! Invariants: nothing is touched that does not have both our name and our marker; configurations are pure functions of the
//! spec and the options; a failed start removes what it made.
//!
//! Start reading at [`LxcBackend`], then `container`.

mod api;
mod container;
#[cfg(test)]
mod fixture;
#[doc(hidden)]
pub mod fuzz;
mod plain;
mod proxmox;

pub use api::ApiClient;
pub use api::ApiOptions;
pub use api::ClusterStatus;
pub use api::CtStatus;
pub use api::CtSummary;
pub use api::Permissions;
pub use api::Pve;
pub use api::PveError;
pub use container::LxcOptions;
pub use container::marked_as;
pub use plain::LxcBackend;
pub use proxmox::FakePmxcfs;
pub use proxmox::FeatureError;
pub use proxmox::Features;
pub use proxmox::Pmxcfs;
pub use proxmox::ProxmoxBackend;
pub use proxmox::ProxmoxOptions;
pub use proxmox::StartMode;
pub use proxmox::Version;
pub use proxmox::check_subids;
pub use proxmox::post_stop;
