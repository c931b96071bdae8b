//! The `proxmox` backend.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use nexcage_sandbox::{
    Audit, CgroupTree, RunningSandbox, SandboxBackend, SandboxError, SandboxId, SandboxSpec,
    SandboxState, validate_spec,
};

use super::conf::is_hostname;
use super::confs::Confs;
use super::ct::Ct;
use super::features::Features;
use super::options::ProxmoxOptions;
use super::pmxcfs::{MountedPmxcfs, Pmxcfs};
use super::units::{Systemd, Units};
use super::vmid::{Vmids, marked};
use crate::container::{Engine, blocking, or_remove};

pub(super) const NAME: &str = "proxmox";

/// Pods as containers of Proxmox VE.
#[derive(Debug)]
pub struct ProxmoxBackend {
    pub(super) options: ProxmoxOptions,
    pub(super) engine: Arc<Engine>,
    pub(super) confs: Confs,
    pub(super) vmids: Arc<Vmids>,
    pub(super) units: Arc<dyn Units>,
    /// What Proxmox can do, from the last time that somebody looked.
    features: Mutex<Option<Features>>,
}

impl ProxmoxBackend {
    /// Nothing is touched before the first call.
    pub fn new(options: ProxmoxOptions, cgroups: Arc<CgroupTree>) -> Self {
        Self::with_pmxcfs(options, cgroups, Arc::new(MountedPmxcfs))
    }

    /// With another cluster file system than the one that is mounted at `pve_dir`, for tests.
    pub fn with_pmxcfs(
        options: ProxmoxOptions,
        cgroups: Arc<CgroupTree>,
        pmxcfs: Arc<dyn Pmxcfs>,
    ) -> Self {
        let directory = options
            .pve_dir
            .join("nodes")
            .join(&options.node)
            .join("lxc");
        Self {
            engine: Arc::new(Engine::new(NAME, options.lxc.clone(), cgroups)),
            confs: Confs::new(pmxcfs, directory, options.lock_dir.clone()),
            vmids: Arc::new(Vmids::new(options.vmids.clone(), &options.node)),
            units: Arc::new(Systemd),
            features: Mutex::default(),
            options,
        }
    }

    /// What Proxmox can do, asked once.
    pub(super) async fn features(&self) -> Result<Features, SandboxError> {
        let known = *self.features.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(features) => Ok(features),
            None => self.look_for_features().await,
        }
    }

    /// What Proxmox can do now: it may have been upgraded.
    pub(super) async fn look_for_features(&self) -> Result<Features, SandboxError> {
        let features = Features::detect(&self.options.dpkg_query).await;
        let features = features.map_err(|e| self.engine.unavailable_by(&e))?;
        *self.features.lock().unwrap_or_else(PoisonError::into_inner) = Some(features);
        Ok(features)
    }

    /// The pod's container, found by its directory: so it is known after a restart and after a reboot.
    pub(super) async fn find(&self, spec: &SandboxSpec) -> Result<Option<Ct>, SandboxError> {
        let (lxc_path, id) = (self.engine.options().lxc_path.clone(), spec.id.clone());
        let numbers = blocking(&spec.id, "find the container", move || {
            marked(&lxc_path, &id)
        })
        .await?;
        let vmid = numbers.first();
        Ok(vmid.map(|vmid| Ct::new(&self.engine, spec, *vmid)))
    }
}

#[async_trait]
impl SandboxBackend for ProxmoxBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn check(&self) -> Result<(), SandboxError> {
        self.check_all().await
    }

    fn validate(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        validate_spec(NAME, spec, self.engine.cgroups())?;
        if !is_hostname(&spec.hostname) {
            return Err(SandboxError::Unsupported {
                backend: NAME,
                field: "hostname",
                reason: format!(
                    "{:?} is no host name to Proxmox: letters, digits and dashes, with dots between, 63 at most",
                    spec.hostname
                ),
            });
        }
        Ok(())
    }

    async fn start(&self, spec: &SandboxSpec) -> Result<RunningSandbox, SandboxError> {
        self.validate(spec)?;
        or_remove(self, spec, self.try_start(spec).await).await
    }

    async fn inspect(&self, spec: &SandboxSpec) -> Result<SandboxState, SandboxError> {
        let cgroups = self.engine.locate(spec)?;
        let Some(init) = self.engine.cgroups().init(&cgroups).await else {
            return Ok(SandboxState::Stopped);
        };
        let ct = self.find(spec).await?;
        Ok(SandboxState::Running(RunningSandbox {
            init,
            cgroups,
            container: ct.map(|ct| ct.name()),
        }))
    }

    async fn update(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.engine.limit(spec).await?;
        self.write_limits(spec).await
    }

    async fn audit(&self, spec: &SandboxSpec) -> Result<Audit, SandboxError> {
        self.audit_conf(spec).await
    }

    async fn stop(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.engine.end(spec).await?;
        self.remove_includes(spec).await
    }

    async fn remove(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.stop(spec).await?;
        self.remove_containers(&spec.id).await?;
        self.remove_run_files(spec).await
    }

    async fn tidy(&self) -> Result<(), SandboxError> {
        self.sweep().await
    }

    async fn leftovers(&self) -> Result<Vec<SandboxId>, SandboxError> {
        self.find_leftovers().await
    }

    async fn remove_leftover(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.engine.end_leftover(id).await?;
        self.remove_containers(id).await
    }
}
