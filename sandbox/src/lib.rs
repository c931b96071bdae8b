//! Shells of pods.

mod backend;
mod cgroup;
mod error;

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
pub use cgroup::PodCgroups;
pub use error::SandboxError;
