//! Shells of pods.

mod backend;
mod cgroup;
mod error;
mod host;
mod netns;
mod rootfs;
mod tree;

pub use backend::IdMapping;
pub use backend::NamespaceMode;
pub use backend::PodResources;
pub use backend::RunningSandbox;
pub use backend::SandboxBackend;
pub use backend::SandboxId;
pub use backend::SandboxInit;
pub use backend::SandboxSpec;
pub use backend::SandboxState;
pub use backend::UserNamespace;
pub use cgroup::CgroupHost;
pub use cgroup::PodCgroups;
pub use error::SandboxError;
pub use host::HostBackend;
pub use host::HostOptions;
pub use netns::NetnsError;
pub use netns::pin_netns;
pub use netns::unpin_netns;
pub use rootfs::RootfsError;
pub use rootfs::ensure_rootfs;
pub use tree::CgroupTree;
