//! The `proxmox` backend.

use std::sync::Arc;

use async_trait::async_trait;
use nexcage_sandbox::{
    CgroupTree, RunningSandbox, SandboxBackend, SandboxError, SandboxId, SandboxSpec, SandboxState,
    validate_spec,
};

use super::options::ProxmoxOptions;

const NAME: &str = "proxmox";

/// Pods as containers of Proxmox VE.
#[derive(Debug)]
pub struct ProxmoxBackend {
    options: ProxmoxOptions,
    cgroups: Arc<CgroupTree>,
}

impl ProxmoxBackend {
    /// Nothing is touched before the first call.
    pub fn new(options: ProxmoxOptions, cgroups: Arc<CgroupTree>) -> Self {
        Self { options, cgroups }
    }

    fn unavailable(&self) -> SandboxError {
        SandboxError::Unavailable {
            backend: NAME,
            reason: format!(
                "this nexcage cannot make containers in {} yet",
                self.options.pve_dir
            ),
        }
    }
}

#[async_trait]
impl SandboxBackend for ProxmoxBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn check(&self) -> Result<(), SandboxError> {
        Err(self.unavailable())
    }

    fn validate(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        validate_spec(NAME, spec, &self.cgroups)
    }

    async fn start(&self, _spec: &SandboxSpec) -> Result<RunningSandbox, SandboxError> {
        Err(self.unavailable())
    }

    async fn inspect(&self, _spec: &SandboxSpec) -> Result<SandboxState, SandboxError> {
        Ok(SandboxState::Stopped)
    }

    async fn update(&self, _spec: &SandboxSpec) -> Result<(), SandboxError> {
        Err(self.unavailable())
    }

    async fn stop(&self, _spec: &SandboxSpec) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn remove(&self, _spec: &SandboxSpec) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn leftovers(&self) -> Result<Vec<SandboxId>, SandboxError> {
        Ok(Vec::new())
    }

    async fn remove_leftover(&self, _id: &SandboxId) -> Result<(), SandboxError> {
        Ok(())
    }
}
