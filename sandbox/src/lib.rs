//! Shells of pods.

mod backend;
mod cgroup;
mod cgroupfs;
mod error;
#[cfg(test)]
mod fixture;
mod host;
mod host_spec;
mod limits;
mod netns;
mod parent;
mod process;
mod rootfs;
mod sysctl;
mod tree;
mod validate;

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
pub use host::HostBackend;
pub use host::HostOptions;
pub use netns::NetnsError;
pub use netns::pin_netns;
pub use netns::unpin_netns;
pub use process::SandboxInit;
pub use rootfs::INIT;
pub use rootfs::RootfsError;
pub use rootfs::ensure_rootfs;
pub use sysctl::SysctlError;
pub use sysctl::apply_sysctls;
pub use sysctl::validate_sysctls;
pub use tree::CgroupTree;
pub use tree::INIT_CGROUP;
pub use validate::validate_spec;
