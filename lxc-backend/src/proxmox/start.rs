//! Starting a pod's container.
//!
//! Each step leaves something that is found by what came before it:
//!
//! 1. the container's directory with our marker, and its configuration, locked: the number is the pod's ([`Vmids::reserve`](super::vmid::Vmids::reserve));
//! 2. the LXC configuration that Proxmox's includes, and a copy of Proxmox's;
//! 3. directly: LXC's whole configuration, the pod's cgroup with the container in it, then Proxmox's lock is taken away;
//!    by the API: Proxmox's lock is taken away, since it starts nothing that is locked, then the pod's cgroup, then the container.

use std::io;
use std::sync::Arc;

use nexcage_sandbox::{
    FirstError, PodCgroups, RunningSandbox, SandboxBackend as _, SandboxError, SandboxSpec,
    SharedNamespaces,
};

use super::backend::{NAME, ProxmoxBackend};
use super::conf::{Setting, build, edit};
use super::confs::{ConfError, Owner};
use super::ct::{Ct, hook_command, include_path};
use super::node::NodeSize;
use super::options::StartMode;
use super::subids;
use super::vmid::ReserveError;
use crate::api::{Pve, PveError};
use crate::container::{Engine, blocking, config, include};

impl ProxmoxBackend {
    pub(super) async fn try_start(
        &self,
        spec: &SandboxSpec,
    ) -> Result<RunningSandbox, SandboxError> {
        let cgroups = self.engine.locate(spec)?;
        self.vet_ids(spec).await?;
        if self.find(spec).await?.is_some() {
            // Of an earlier try that nobody cleaned up after.
            self.remove(spec).await?;
        }
        let shared = self.engine.shared_namespaces(spec).await?;
        let (ct, written) = self.reserve(spec).await?;
        self.write_files(spec, &cgroups, &ct, shared.as_ref(), written)
            .await?;
        let started = match &self.options.start {
            StartMode::Direct => self.start_directly(spec, &ct).await,
            StartMode::Api(pve) => self.start_by_api(spec, &ct, pve).await,
        };
        // It is in them now.
        drop(shared);
        if let Err(error) = started {
            return Err(match self.is_taken_away(spec, &ct).await {
                true => SandboxError::ended(&spec.id, error),
                false => error,
            });
        }
        let init = self.engine.complete(spec, &cgroups).await?;
        Ok(RunningSandbox {
            init,
            cgroups,
            container: Some(ct.name()),
        })
    }

    /// Whether an administrator has removed the container's configuration, or put another guest's in its place.
    async fn is_taken_away(&self, spec: &SandboxSpec, ct: &Ct) -> bool {
        let (confs, id, vmid) = (self.confs.clone(), spec.id.clone(), ct.vmid);
        let owner = tokio::task::spawn_blocking(move || confs.owner(vmid, &id)).await;
        matches!(owner, Ok(Ok(Owner::Nobody | Owner::Foreign)))
    }

    /// Started by Proxmox, LXC maps only ids that are root's.
    async fn vet_ids(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        let (StartMode::Api(_), Some(users)) = (&self.options.start, &spec.user_namespace) else {
            return Ok(());
        };
        let (uids, gids) = (users.uids.clone(), users.gids.clone());
        let vetted = blocking(&spec.id, "read /etc/subuid", move || {
            Ok(subids::check(&uids, &gids))
        });
        vetted.await?.map_err(|reason| SandboxError::Unsupported {
            backend: NAME,
            field: "linux.security_context.namespace_options.userns_options",
            reason,
        })
    }

    /// Takes a number of its own for the pod. Answers with the container and with its configuration as it is to be.
    async fn reserve(&self, spec: &SandboxSpec) -> Result<(Ct, String), SandboxError> {
        let id = &spec.id;
        if !spec.run_dir.ends_with(&id.0) {
            let reason = format!("its run directory {} does not end in its id", spec.run_dir);
            let error = io::Error::other(reason);
            return Err(SandboxError::step(id, "name its files")(error));
        }
        let node = blocking(id, "measure the node", NodeSize::read).await?;
        let features = self.features().await?;
        let conf = PodConf {
            engine: Arc::clone(&self.engine),
            spec: spec.clone(),
            idmapped_rootfs: features.idmap,
            node,
        };
        let (vmids, confs) = (Arc::clone(&self.vmids), self.confs.clone());
        let reserved = tokio::task::spawn_blocking(move || {
            let lxc_path = &conf.engine.options().lxc_path;
            let text = |vmid| conf.text(vmid, true);
            let vmid = vmids.reserve(&conf.spec.id, lxc_path, &confs, text)?;
            Ok((vmid, conf.text(vmid, false)))
        });
        let doing = "reserve a number";
        let reserved = reserved
            .await
            .map_err(|e| SandboxError::step(id, doing)(e))?;
        let (vmid, text) = reserved.map_err(|error| match &error {
            ReserveError::Exhausted { .. }
            | ReserveError::Conf(ConfError::NoQuorum { .. } | ConfError::NotMounted { .. }) => {
                self.engine.unavailable_by(&error)
            }
            _ => SandboxError::step(id, doing)(error),
        })?;
        Ok((Ct::new(&self.engine, spec, vmid), text))
    }

    /// Writes what LXC reads, and once more what Proxmox has.
    async fn write_files(
        &self,
        spec: &SandboxSpec,
        cgroups: &PodCgroups,
        ct: &Ct,
        shared: Option<&SharedNamespaces>,
        conf: String,
    ) -> Result<(), SandboxError> {
        let hook = hook_command(self.options.hook.path(), &cgroups.container, &ct.include);
        let (included, whole) = self
            .engine
            .with_shell(spec, cgroups, shared, &hook, |shell| {
                (include(spec, shell), config(spec, shell))
            })
            .await?;
        let whole = match &self.options.start {
            StartMode::Direct => Some((ct.directory.config(), whole)),
            StartMode::Api(_) => None,
        };
        let (include, written) = (ct.include.clone(), ct.written.clone());
        blocking(&spec.id, "write the LXC configuration", move || {
            if let Some(directory) = include.parent() {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::write(written, conf)?;
            std::fs::write(include, included)?;
            nexcage_failpoint::hit("pve.include-written");
            if let Some((path, text)) = whole {
                std::fs::write(path, text)?;
                nexcage_failpoint::hit("pve.config-written");
            }
            Ok(())
        })
        .await
    }

    /// Starts it without Proxmox, which sees it all the same.
    async fn start_directly(&self, spec: &SandboxSpec, ct: &Ct) -> Result<(), SandboxError> {
        self.engine.launch(spec, &ct.name(), &ct.directory).await?;
        nexcage_failpoint::hit("pve.started");
        self.unlock(spec, ct).await
    }

    /// Has Proxmox start it, into a cgroup that is there before.
    async fn start_by_api(
        &self,
        spec: &SandboxSpec,
        ct: &Ct,
        pve: &Arc<dyn Pve>,
    ) -> Result<(), SandboxError> {
        let id = &spec.id;
        self.unlock(spec, ct).await?;
        let holder = &self.engine.options().holder;
        let held = match self.engine.cgroups().hold(spec, holder).await {
            Ok(held) => held,
            Err(FirstError::Command(error)) => {
                return Err(SandboxError::step(id, "hold the cgroups")(error));
            }
            Err(FirstError::Cgroup(error)) => {
                return Err(SandboxError::step(id, "make the cgroups")(error));
            }
        };
        pve.start(ct.vmid).await.map_err(|error| match error {
            PveError::NoQuorum { .. } | PveError::Unreachable { .. } => {
                self.engine.unavailable_by(&error)
            }
            _ => SandboxError::step(id, format!("have Proxmox start container {}", ct.vmid))(error),
        })?;
        nexcage_failpoint::hit("pve.started");
        // Nothing may stay in the cgroup that it was in.
        let released = held.release().await;
        released.map_err(SandboxError::step(id, "let the cgroups go"))
    }

    /// Lets Proxmox, and administrators, do what they like with the container.
    async fn unlock(&self, spec: &SandboxSpec, ct: &Ct) -> Result<(), SandboxError> {
        let (confs, id, vmid) = (self.confs.clone(), spec.id.clone(), ct.vmid);
        let unlocked = tokio::task::spawn_blocking(move || {
            confs.change(vmid, &id, |text| edit(text, &[("lock", None)]))
        });
        let doing = "unlock the container";
        let unlocked = unlocked
            .await
            .map_err(|e| SandboxError::step(&spec.id, doing)(e))?;
        unlocked.map_err(SandboxError::step(&spec.id, doing))?;
        nexcage_failpoint::hit("pve.conf-unlocked");
        Ok(())
    }
}

/// All that the configuration of a pod's container depends on but its number.
struct PodConf {
    engine: Arc<Engine>,
    spec: SandboxSpec,
    idmapped_rootfs: bool,
    node: NodeSize,
}

impl PodConf {
    fn text(&self, vmid: u32, locked: bool) -> String {
        let setting = Setting {
            rootfs: &self.engine.options().rootfs,
            idmapped_rootfs: self.idmapped_rootfs,
            ids: self.engine.ids(),
            node: self.node,
            include: &include_path(&self.spec.run_dir, vmid),
        };
        build(&self.spec, &setting, locked)
    }
}
