//! The simplest shell: namespaces held by catatonit under crun, without LXC.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::Program;
use nexcage_oci_runtime::OciRuntime;

use crate::backend::{RunningSandbox, SandboxBackend, SandboxId, SandboxSpec, SandboxState};
use crate::cgroup::PodCgroups;
use crate::error::SandboxError;
use crate::first::FirstError;
use crate::host_spec::oci_spec;
use crate::process::SandboxInit;
use crate::rootfs::INIT;
use crate::sysctl::apply_sysctls;
use crate::tree::{CgroupTree, INIT_CGROUP};
use crate::validate::validate_spec;

const NAME: &str = "host";

/// How long conmons may take to write down how their containers ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the `host` backend needs to know.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The tree made by [`ensure_rootfs`](crate::ensure_rootfs). With user namespaces every directory above it must let
    /// others pass (`o+x`).
    pub rootfs: Utf8PathBuf,
    /// The program with the hidden subcommand `hold` ([`nexcage_command::hold`]): nexcage itself, by
    /// [`Program::myself`].
    pub holder: Program,
}

/// Pods without LXC.
///
/// crun makes the namespaces and the init, and puts nothing into cgroups. It runs in the pod's cgroup itself, so the init is the
/// pod's from its first moment; it waits there for its place and for `start`.
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

    async fn try_start(&self, spec: &SandboxSpec) -> Result<RunningSandbox, SandboxError> {
        let id = &spec.id;
        let directory = spec.run_dir.join("backend");
        self.write_bundle(spec, &directory)
            .await
            .map_err(SandboxError::step(id, "write the OCI bundle"))?;
        nexcage_failpoint::hit("host.bundle-written");

        let pid = self.create(spec, &directory).await?;
        nexcage_failpoint::hit("host.created");
        match self.bring_up(spec, pid).await {
            Err(error) if !is_alive(pid) => Err(SandboxError::ended(id, error)),
            brought_up => brought_up,
        }
    }

    /// Makes a sandbox of the waiting init.
    async fn bring_up(&self, spec: &SandboxSpec, pid: u32) -> Result<RunningSandbox, SandboxError> {
        let id = &spec.id;
        let cgroups = self.locate(spec)?;
        self.place(spec, &cgroups, pid)
            .await
            .map_err(SandboxError::step(id, "place the init"))?;

        self.runtime
            .start(&id.0)
            .await
            .map_err(SandboxError::step(id, "start the init"))?;
        nexcage_failpoint::hit("host.started");
        apply_sysctls(pid, &spec.sysctls)
            .await
            .map_err(SandboxError::step(id, "set the sysctls"))?;

        let init = self.cgroups.init(&cgroups).await.ok_or_else(|| {
            SandboxError::step(id, "find the init")(io::Error::other("it ended at once"))
        })?;
        Ok(RunningSandbox {
            init,
            cgroups,
            container: None,
        })
    }

    /// Lets crun make the namespaces and the waiting init, in the pod's cgroup.
    async fn create(&self, spec: &SandboxSpec, directory: &Utf8Path) -> Result<u32, SandboxError> {
        let id = &spec.id;
        let unable = |e| SandboxError::step(id, "make the namespaces")(e);
        let creation = self
            .runtime
            .create_plain(&id.0, directory, &directory.join("pid"));
        let (command, creation) = creation.map_err(unable)?;
        let holder = &self.options.holder;
        let ran = match self.cgroups.run_first(spec, command, holder).await {
            Ok(output) => Ok(output),
            Err(FirstError::Command(error)) => Err(error),
            Err(FirstError::Cgroup(error)) => {
                return Err(SandboxError::step(id, "make the cgroups")(error));
            }
        };
        creation.finish(ran).await.map_err(unable)
    }

    async fn write_bundle(&self, spec: &SandboxSpec, directory: &Utf8Path) -> io::Result<()> {
        let config = serde_json::to_vec(&oci_spec(spec, &self.options.rootfs))?;
        tokio::fs::create_dir_all(directory).await?;
        tokio::fs::write(directory.join("config.json"), config).await
    }

    /// Moves the waiting init to its own cgroup. `settle` comes last: it wants the waiting place empty.
    async fn place(
        &self,
        spec: &SandboxSpec,
        cgroups: &PodCgroups,
        pid: u32,
    ) -> Result<(), crate::CgroupError> {
        self.cgroups.prepare(cgroups).await?;
        self.cgroups
            .enter(&cgroups.container.join(INIT_CGROUP), pid)
            .await?;
        self.cgroups.settle(cgroups, &spec.resources).await
    }

    /// Ends everything in the pod's cgroups, wherever they are, and the namespaces.
    async fn end(&self, id: &SandboxId, pods: &[PodCgroups]) -> Result<(), SandboxError> {
        // The init first, by what crun knows of it.
        self.runtime
            .delete(&id.0, true)
            .await
            .map_err(SandboxError::step(id, "remove the namespaces"))?;
        nexcage_failpoint::hit("host.deleted");
        for cgroups in pods {
            self.cgroups
                .kill(cgroups, PATIENCE)
                .await
                .map_err(SandboxError::step(id, "end the processes"))?;
        }
        nexcage_failpoint::hit("host.killed");
        for cgroups in pods {
            self.cgroups
                .end(cgroups)
                .await
                .map_err(SandboxError::step(id, "remove the cgroups"))?;
        }
        nexcage_failpoint::hit("host.cgroups-removed");
        Ok(())
    }

    fn locate(&self, spec: &SandboxSpec) -> Result<PodCgroups, SandboxError> {
        let located = self.cgroups.locate(spec);
        located.map_err(SandboxError::step(&spec.id, "find the cgroups"))
    }
}

fn is_alive(pid: u32) -> bool {
    SandboxInit::of(pid).is_ok_and(|init| init.is_alive())
}

#[async_trait]
impl SandboxBackend for HostBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn check(&self) -> Result<(), SandboxError> {
        let unavailable = |reason| SandboxError::Unavailable {
            backend: NAME,
            reason,
        };
        if self.cgroups.host().root().is_none() {
            return Err(unavailable(crate::CgroupError::NotMounted.to_string()));
        }
        let init = self.options.rootfs.join(INIT.trim_start_matches('/'));
        if !tokio::fs::try_exists(&init).await.unwrap_or(false) {
            return Err(unavailable(format!(
                "{init} is missing; restart nexcage, which makes it from /usr/bin/catatonit"
            )));
        }
        Ok(())
    }

    fn validate(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        validate_spec(NAME, spec, &self.cgroups)
    }

    async fn start(&self, spec: &SandboxSpec) -> Result<RunningSandbox, SandboxError> {
        self.validate(spec)?;
        let started = self.try_start(spec).await;
        if started.is_err()
            && let Err(error) = self.remove(spec).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(sandbox = %spec.id, error, "a sandbox that did not start cannot be cleaned up");
        }
        started
    }

    async fn inspect(&self, spec: &SandboxSpec) -> Result<SandboxState, SandboxError> {
        let cgroups = self.locate(spec)?;
        Ok(match self.cgroups.init(&cgroups).await {
            Some(init) => SandboxState::Running(RunningSandbox {
                init,
                cgroups,
                container: None,
            }),
            None => SandboxState::Stopped,
        })
    }

    async fn update(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        let limited = self
            .cgroups
            .limit(&self.locate(spec)?, &spec.resources)
            .await;
        limited.map_err(SandboxError::step(&spec.id, "change the pod's limits"))
    }

    async fn stop(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.end(&spec.id, &[self.locate(spec)?]).await
    }

    async fn remove(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.stop(spec).await?;
        let directory = spec.run_dir.join("backend");
        match tokio::fs::remove_dir_all(&directory).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(SandboxError::step(&spec.id, "remove the OCI bundle")(e))
            }
            _ => Ok(()),
        }
    }

    async fn tidy(&self) -> Result<(), SandboxError> {
        let tidied = self.runtime.tidy().await;
        tidied.map_err(|e| SandboxError::Unavailable {
            backend: NAME,
            reason: e.to_string(),
        })
    }

    async fn leftovers(&self) -> Result<Vec<SandboxId>, SandboxError> {
        let unavailable = |e: &dyn std::error::Error| SandboxError::Unavailable {
            backend: NAME,
            reason: e.to_string(),
        };
        let mut ids = self
            .cgroups
            .leftovers()
            .await
            .map_err(|e| unavailable(&e))?;
        let containers = self.runtime.list().await.map_err(|e| unavailable(&e))?;
        ids.extend(containers.into_iter().map(SandboxId));
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    async fn remove_leftover(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let pods = self
            .cgroups
            .find(id)
            .await
            .map_err(SandboxError::step(id, "find the cgroups"))?;
        self.end(id, &pods).await
    }
}
