//! Plain LXC.

use std::sync::Arc;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use nexcage_command::Program;
use nexcage_sandbox::{
    CgroupTree, RunningSandbox, SandboxBackend, SandboxError, SandboxId, SandboxSpec, SandboxState,
};

/// What the `lxc` backend needs to know.
#[derive(Clone, Debug)]
pub struct LxcOptions {
    /// Directory of all LXC containers (`lxc.lxcpath`), usually `/var/lib/lxc`.
    pub lxc_path: Utf8PathBuf,
    /// The tree made by [`ensure_rootfs`](nexcage_sandbox::ensure_rootfs). Every directory above it must let others
    /// pass (`o+x`).
    pub rootfs: Utf8PathBuf,
    /// First host id that the ids of a sandbox without a user namespace of its own are mapped to.
    pub id_base: u32,
    /// How many ids are mapped.
    pub id_count: u32,
    /// Whether sandboxes get an AppArmor profile, where the kernel has AppArmor.
    pub apparmor: bool,
    /// The profile; `generated` by default.
    pub apparmor_profile: Option<String>,
    /// The program with the hidden subcommand `hold`: nexcage itself
    /// ([`Program::myself`]).
    pub holder: Program,
}

/// Pods as LXC containers.
#[derive(Debug)]
pub struct LxcBackend {
    options: LxcOptions,
    cgroups: Arc<CgroupTree>,
}

impl LxcBackend {
    /// Nothing is touched before the first call.
    pub fn new(options: LxcOptions, cgroups: Arc<CgroupTree>) -> Self {
        Self { options, cgroups }
    }
}

#[async_trait]
impl SandboxBackend for LxcBackend {
    fn name(&self) -> &'static str {
        "lxc"
    }
    async fn check(&self) -> Result<(), SandboxError> {
        todo!()
    }
    fn validate(&self, _spec: &SandboxSpec) -> Result<(), SandboxError> {
        todo!()
    }
    async fn start(&self, _spec: &SandboxSpec) -> Result<RunningSandbox, SandboxError> {
        todo!()
    }
    async fn inspect(&self, _spec: &SandboxSpec) -> Result<SandboxState, SandboxError> {
        todo!()
    }
    async fn stop(&self, _spec: &SandboxSpec) -> Result<(), SandboxError> {
        todo!()
    }
    async fn remove(&self, _spec: &SandboxSpec) -> Result<(), SandboxError> {
        todo!()
    }
    async fn leftovers(&self) -> Result<Vec<SandboxId>, SandboxError> {
        todo!()
    }
    async fn remove_leftover(&self, _id: &SandboxId) -> Result<(), SandboxError> {
        todo!()
    }
}
