//! Making, limiting, killing and removing the cgroups of pods.

use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_systemd::ScopeManager;

use crate::backend::{PodResources, SandboxId, SandboxSpec};
use crate::cgroup::{CgroupHost, PodCgroups};
use crate::cgroupfs::{self, CgroupError};
use crate::limits;
use crate::parent::Parent;
use crate::process::SandboxInit;

/// How long killed processes may take to end, and busy cgroups to be let go by the kernel.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where the first process of a pod waits until it goes on to `monitor` or `ct/sandbox`: cgroup v2 allows no processes
/// in a cgroup whose children have controllers.
pub(crate) const START: &str = "start";

/// The cgroup of the sandbox's init, below [`PodCgroups::container`].
pub const INIT_CGROUP: &str = "sandbox";

/// The cgroup tree of this machine, as far as pods are concerned.
///
/// A pod's cgroup is a systemd scope where systemd is init, and a plain directory where not; everything below it is the
/// same. On a hybrid host LXC makes cgroups of the same names in all v1 hierarchies, and they are removed here as well.
#[derive(Clone, Debug)]
pub struct CgroupTree {
    host: CgroupHost,
    prefix: String,
    scopes: Option<Arc<dyn ScopeManager>>,
}

impl CgroupTree {
    /// Pods' cgroups are named `<prefix><id>`; the prefix is made of lower-case letters, digits and dashes and is this
    /// nexcage's own. With `scopes` they are systemd's scopes, otherwise plain directories.
    pub fn new(host: CgroupHost, prefix: &str, scopes: Option<Arc<dyn ScopeManager>>) -> Self {
        Self {
            host,
            prefix: prefix.to_owned(),
            scopes,
        }
    }

    /// Which hierarchies there are.
    pub fn host(&self) -> &CgroupHost {
        &self.host
    }

    /// systemd's, where systemd is init.
    pub(crate) fn scopes(&self) -> Option<&dyn ScopeManager> {
        self.scopes.as_deref()
    }

    /// The name of everything that belongs to a sandbox: `<prefix><id>`.
    pub fn name(&self, id: &SandboxId) -> String {
        format!("{}{id}", self.prefix)
    }

    /// The sandbox that has this name, if it is one of this nexcage.
    pub fn id_of(&self, name: &str) -> Option<SandboxId> {
        let id = name.strip_prefix(&self.prefix)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (id.len() == 64 && id.bytes().all(hex)).then(|| SandboxId(id.to_owned()))
    }

    /// Where the cgroups of a pod are or will be. No side effects.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NotMounted`], [`CgroupError::Parent`].
    pub fn locate(&self, spec: &SandboxSpec) -> Result<PodCgroups, CgroupError> {
        let parent = self.parent(&spec.cgroup_parent)?;
        self.pod_at(&parent.path().join(self.unit(&spec.id)))
    }

    /// `path` below the mount point, as LXC and OCI runtimes want it.
    pub fn relative<'a>(&self, path: &'a Utf8Path) -> &'a Utf8Path {
        let root = self.host.root().unwrap_or(Utf8Path::new("/"));
        path.strip_prefix(root).unwrap_or(path)
    }

    /// Makes the cgroups of monitors and of containers, for shells that do not make them themselves.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`], [`CgroupError::Controller`].
    pub async fn prepare(&self, cgroups: &PodCgroups) -> Result<(), CgroupError> {
        let cgroups = cgroups.clone();
        blocking(move || {
            cgroupfs::make(&cgroups.monitor)?;
            cgroupfs::make(&cgroups.container)
        })
        .await
    }

    /// Removes the cgroup in which the first process waited and sets the pod's limits.
    ///
    /// # Errors
    ///
    /// A [`CgroupError`] of any kind.
    pub async fn settle(
        &self,
        cgroups: &PodCgroups,
        resources: &PodResources,
    ) -> Result<(), CgroupError> {
        let cgroups = cgroups.clone();
        let resources = resources.clone();
        blocking(move || {
            cgroupfs::remove(&cgroups.pod.join(START), DEADLINE)?;
            if cgroups.controllers {
                cgroupfs::enable_controllers(&cgroups.container)?;
                limits::write(&cgroups.container, &resources)?;
            }
            Ok(())
        })
        .await
    }

    /// Makes the limits of a pod that runs those that are given: what is `None` becomes unlimited. `Ok` where there can be no
    /// limits.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`], as for a limit below what is used.
    pub async fn limit(
        &self,
        cgroups: &PodCgroups,
        resources: &PodResources,
    ) -> Result<(), CgroupError> {
        let cgroups = cgroups.clone();
        let resources = resources.clone();
        blocking(move || match cgroups.controllers {
            true => limits::replace(&cgroups.container, &resources),
            false => Ok(()),
        })
        .await
    }

    /// Moves a process to a cgroup of a pod, which is made if its parent exists.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`].
    pub async fn enter(&self, cgroup: &Utf8Path, pid: u32) -> Result<(), CgroupError> {
        let cgroup = cgroup.to_owned();
        blocking(move || {
            cgroupfs::make(&cgroup)?;
            cgroupfs::enter(&cgroup, pid)
        })
        .await
    }

    /// The living init of a pod: the oldest process in its cgroup.
    pub async fn init(&self, cgroups: &PodCgroups) -> Option<SandboxInit> {
        let cgroup = cgroups.container.join(INIT_CGROUP);
        tokio::task::spawn_blocking(move || {
            let pids = cgroupfs::processes(&cgroup).into_iter();
            pids.filter_map(|pid| SandboxInit::of(pid).ok())
                .filter(SandboxInit::is_alive)
                .min_by_key(|init| (init.start_time, init.pid))
        })
        .await
        .ok()
        .flatten()
    }

    /// Kills the app containers and the init, and gives the pod's monitors time to see it and end by themselves: conmon
    /// writes down exit codes, LXC cleans up. After `patience` they are killed, too. The cgroups stay.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Busy`], [`CgroupError::Io`].
    pub async fn kill(&self, cgroups: &PodCgroups, patience: Duration) -> Result<(), CgroupError> {
        let cgroups = cgroups.clone();
        blocking(move || {
            cgroupfs::kill_and_wait(&cgroups.container, DEADLINE)?;
            let ended = cgroupfs::wait_until(patience, || !cgroupfs::is_populated(&cgroups.pod));
            if !ended {
                let pids = cgroupfs::all_processes(&cgroups.pod);
                tracing::warn!(cgroup = %cgroups.pod, ?pids, "monitors did not end by themselves and are killed");
                cgroupfs::kill_and_wait(&cgroups.pod, DEADLINE)?;
            }
            Ok(())
        })
        .await
    }

    /// Kills everything that is left in the pod's cgroups and removes them in every hierarchy. `Ok` when there is
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Busy`], [`CgroupError::Io`], [`CgroupError::Scope`].
    pub async fn end(&self, cgroups: &PodCgroups) -> Result<(), CgroupError> {
        let everywhere = self.everywhere(self.relative(&cgroups.pod));
        blocking(move || {
            for pod in &everywhere {
                cgroupfs::kill_and_wait(pod, DEADLINE)?;
            }
            for pod in &everywhere {
                cgroupfs::remove(pod, DEADLINE)?;
            }
            Ok(())
        })
        .await?;
        if let (Some(scopes), Some(scope)) = (&self.scopes, cgroups.pod.file_name()) {
            // Empty scopes end by themselves, but not at once, and not those whose processes never entered them.
            scopes.stop_scope(scope).await.map_err(CgroupError::Scope)?;
        }
        Ok(())
    }

    /// Sandboxes of this nexcage that have cgroups or scopes.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NotMounted`], [`CgroupError::Scope`].
    pub async fn leftovers(&self) -> Result<Vec<SandboxId>, CgroupError> {
        let mut ids: Vec<SandboxId> = self
            .search(None)
            .await?
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        if let Some(scopes) = &self.scopes {
            let names = scopes
                .list(&self.prefix)
                .await
                .map_err(CgroupError::Scope)?;
            ids.extend(names.iter().filter_map(|name| self.id_of_unit(name)));
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// The cgroups of a sandbox of which only the id is known; several if crashes left it in several places.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NotMounted`].
    pub async fn find(&self, id: &SandboxId) -> Result<Vec<PodCgroups>, CgroupError> {
        let found = self.search(Some(id.clone())).await?;
        found.iter().map(|(_, path)| self.pod_at(path)).collect()
    }

    /// Removes the parent of pods for which kubelet named none, if no pod is left in it. Only while no sandbox is being
    /// started: for a clean end of the daemon.
    pub async fn tidy(&self) {
        if self.scopes.is_some() {
            // systemd ends slices that it does not need.
            return;
        }
        let Ok(parent) = self.parent("") else { return };
        for path in self.everywhere(parent.path()) {
            // Not empty, or not there.
            let _ = tokio::fs::remove_dir(path).await;
        }
    }

    pub(crate) fn parent(&self, cgroup_parent: &str) -> Result<Parent, CgroupError> {
        let parsed = match self.scopes {
            Some(_) => Parent::slice_of(cgroup_parent),
            None => Parent::directory_of(cgroup_parent),
        };
        parsed.map_err(|reason| CgroupError::Parent {
            parent: cgroup_parent.to_owned(),
            reason,
        })
    }

    /// Name of the pod's own cgroup.
    pub(crate) fn unit(&self, id: &SandboxId) -> String {
        match self.scopes {
            Some(_) => format!("{}.scope", self.name(id)),
            None => self.name(id),
        }
    }

    fn id_of_unit(&self, unit: &str) -> Option<SandboxId> {
        self.id_of(unit.strip_suffix(".scope").unwrap_or(unit))
    }

    /// The cgroups of the pod at `relative` below the mount point.
    fn pod_at(&self, relative: &Utf8Path) -> Result<PodCgroups, CgroupError> {
        let root = self.host.root().ok_or(CgroupError::NotMounted)?;
        let pod = root.join(relative);
        Ok(PodCgroups {
            monitor: pod.join("monitor"),
            container: pod.join("ct"),
            pod,
            controllers: self.host.has_controllers(),
        })
    }

    /// The cgroup of this path in every hierarchy.
    fn everywhere(&self, relative: &Utf8Path) -> Vec<Utf8PathBuf> {
        let roots = self.host.roots();
        roots.into_iter().map(|root| root.join(relative)).collect()
    }

    /// Makes the pod's cgroup as a plain directory, with controllers enabled on the way.
    pub(crate) async fn make_pod(&self, cgroups: &PodCgroups) -> Result<(), CgroupError> {
        let root = self.host.root().ok_or(CgroupError::NotMounted)?.to_owned();
        let cgroups = cgroups.clone();
        blocking(move || {
            let mut ancestors: Vec<&Utf8Path> = cgroups
                .pod
                .ancestors()
                .take_while(|path| *path != root)
                .collect();
            ancestors.reverse();
            let mut parent = root.as_path();
            for cgroup in ancestors {
                if cgroups.controllers {
                    cgroupfs::enable_controllers(parent)?;
                }
                cgroupfs::make(cgroup)?;
                parent = cgroup;
            }
            Ok(())
        })
        .await
    }

    /// Sandboxes' own cgroups in all hierarchies, with their paths below the mount points; of one sandbox or of all.
    async fn search(
        &self,
        of: Option<SandboxId>,
    ) -> Result<Vec<(SandboxId, Utf8PathBuf)>, CgroupError> {
        let tree = self.clone();
        blocking(move || {
            let mut found = Vec::new();
            for root in tree.host.roots() {
                let mut pending = vec![root.clone()];
                while let Some(directory) = pending.pop() {
                    for child in cgroupfs::children(&directory) {
                        let Some(id) = child.file_name().and_then(|n| tree.id_of_unit(n)) else {
                            pending.push(child);
                            continue;
                        };
                        if of.as_ref().is_none_or(|of| *of == id)
                            && let Ok(relative) = child.strip_prefix(&root)
                        {
                            found.push((id, relative.to_owned()));
                        }
                    }
                }
            }
            found.sort();
            found.dedup();
            Ok(found)
        })
        .await
    }
}

/// Runs file operations where they block no worker.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CgroupError> + Send + 'static,
) -> Result<T, CgroupError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // It cannot be cancelled and must not panic; if it does, the panic goes on in the caller.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(CgroupError::Io {
                doing: "work on",
                path: "/sys/fs/cgroup".into(),
                source: error.into(),
            }),
        },
    }
}
