//! The simplest shell: namespaces held by catatonit under crun, without LXC.

use std::sync::Arc;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use nexcage_oci_runtime::OciRuntime;

use crate::backend::{RunningSandbox, SandboxBackend, SandboxId, SandboxSpec, SandboxState};
use crate::error::SandboxError;
use crate::tree::CgroupTree;

/// What the `host` backend needs to know.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The tree made by [`ensure_rootfs`](crate::ensure_rootfs).
    pub rootfs: Utf8PathBuf,
}

/// Pods without LXC.
#[derive(Debug)]
pub struct HostBackend {
    options: HostOptions,
    cgroups: Arc<CgroupTree>,
    runtime: OciRuntime,
}

impl HostBackend {
    /// `runtime` must have a `root` of its own (all containers below it are sandboxes) and
    /// [`CgroupManager::Disabled`](nexcage_oci_runtime::CgroupManager::Disabled): the backend places processes itself.
    pub fn new(options: HostOptions, cgroups: Arc<CgroupTree>, runtime: OciRuntime) -> Self {
        Self {
            options,
            cgroups,
            runtime,
        }
    }
}

#[async_trait]
impl SandboxBackend for HostBackend {
    fn name(&self) -> &'static str {
        "host"
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
