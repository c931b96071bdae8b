//! What the shell of a pod is.
//!
//! A pod's *shell*, or sandbox, holds the namespaces that its app containers join, and the cgroup that they are counted in. [`SandboxBackend`]
//! is the seam: it makes, finds and ends shells. The simplest one is here, [`HostBackend`]: an init under crun and nothing else. LXC
//! containers, and those of Proxmox, are in crates of their own and use the same parts:
//!
//! * [`CgroupTree`] makes the pod's scope or directory below kubelet's cgroup, and is the only place that kills and waits. It
//!   knows three kinds of hosts ([`CgroupHost`]). Every pod looks the same ([`PodCgroups`]): `monitor` for conmons and the
//!   like, `ct` for all that counts as the pod, `ct/sandbox` for the init.
//! * [`ensure_rootfs`] makes the one read-only tree that is the root of every sandbox.
//! * [`apply_sysctls`] sets kernel parameters inside, [`pin_netns`] keeps a network namespace for CNI.
//! * [`validate_spec`] refuses what no backend can honour.
//!
//! There are no tasks and no channels. Everything that touches files or waits for processes runs on tokio's blocking threads, except that
//! namespaces are entered by threads that end afterwards.
//!
//! Invariants:
//!
//! * Names follow from the sandbox id (`<prefix><id>`), so that everything can be found and ended after a crash between any two steps,
//!   from the spec or from the id alone. What does not have such a name is never touched.
//! * The init is known by its number and its start time ([`SandboxInit`]), and a signal goes through a pidfd: never to a
//!   process that only has the same number.
//! * Ending is idempotent, and returns only when processes and cgroups are gone.
//!
//! Start reading at [`SandboxBackend`], then [`CgroupTree::run_first`].

mod backend;
mod cgroup;
mod cgroupfs;
mod error;
mod first;
#[cfg(test)]
mod fixture;
mod host;
mod host_spec;
mod limits;
mod netns;
mod parent;
mod process;
mod rootfs;
mod shared;
mod sysctl;
mod tree;
mod validate;

pub use backend::Audit;
pub use backend::Edit;
pub use backend::IdMapping;
pub use backend::NamespaceMode;
pub use backend::PodResources;
pub use backend::RunningSandbox;
pub use backend::SandboxBackend;
pub use backend::SandboxId;
pub use backend::SandboxSpec;
pub use backend::SandboxState;
pub use backend::UserNamespace;
pub use cgroup::CgroupHost;
pub use cgroup::PodCgroups;
pub use cgroupfs::CgroupError;
pub use error::SandboxError;
pub use first::FirstError;
pub use first::HeldPod;
pub use host::HostBackend;
pub use host::HostOptions;
pub use limits::cpu_weight;
pub use netns::NetnsError;
pub use netns::pin_netns;
pub use netns::unpin_netns;
pub use process::SandboxInit;
pub use rootfs::INIT;
pub use rootfs::RootfsError;
pub use rootfs::ensure_rootfs;
pub use shared::SharedNamespaces;
pub use shared::enable_loopback;
pub use shared::make_netns;
pub use sysctl::SysctlError;
pub use sysctl::apply_sysctls;
pub use sysctl::validate_sysctls;
pub use tree::CgroupTree;
pub use tree::INIT_CGROUP;
pub use validate::validate_spec;
