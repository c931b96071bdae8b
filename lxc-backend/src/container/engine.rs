//! A container's life, in steps that both backends take.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::{Command, CommandError};
use nexcage_sandbox::{
    CgroupTree, FirstError, IdMapping, PodCgroups, RunningSandbox, SandboxBackend, SandboxError,
    SandboxId, SandboxInit, SandboxSpec, SharedNamespaces, apply_sysctls,
};

use super::check;
use super::config::{GENERATED_PROFILE, Shared, Shell, atime_option};
use super::directory::Directory;
use super::options::LxcOptions;
use super::{log, profile};

/// How long one start may take: about 20 ms on an idle machine, seconds on one that swaps.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long the init may take to end when asked to. catatonit does it at once.
const INIT_PATIENCE: Duration = Duration::from_secs(2);

/// How long LXC's monitor may take to clean up, and conmons to write down how their containers ended.
const MONITOR_PATIENCE: Duration = Duration::from_secs(5);

/// How long to go on reading what lxc-start says after it ended: its daemon has no use for our pipe.
const LINGER: Duration = Duration::from_millis(100);

/// `PATH` of lxc-start: where it finds apparmor_parser and does not find newuidmap.
///
/// With newuidmap LXC maps only ids that `/etc/subuid` gives to root, even when it is root itself. Which ids a pod has is decided
/// by nexcage's configuration and by kubelet, whose ranges belong to the user `kubelet` there; so LXC is to write the
/// maps itself, as crun does and as LXC does where the package uidmap is not installed.
const PATH: &str = "/usr/sbin:/sbin";

/// Where LXC keeps a lock file for every container, even after its end.
const LOCKS: &str = "/run/lxc/lock";

/// Where LXC's tools keep a log of every container that they look at, if containers are in LXC's usual directory: Proxmox looks at each
/// every ten seconds. Elsewhere the log is in the container's own directory.
const LOGS: &str = "/var/log/lxc";

/// LXC's usual directory.
const USUAL_LXC_PATH: &str = "/var/lib/lxc";

/// Starts and ends containers of one backend.
#[derive(Debug)]
pub(crate) struct Engine {
    backend: &'static str,
    options: LxcOptions,
    cgroups: Arc<CgroupTree>,
}

impl Engine {
    /// `backend` is its name, for errors. Nothing is touched.
    pub(crate) fn new(
        backend: &'static str,
        options: LxcOptions,
        cgroups: Arc<CgroupTree>,
    ) -> Self {
        Self {
            backend,
            options,
            cgroups,
        }
    }

    pub(crate) fn options(&self) -> &LxcOptions {
        &self.options
    }

    pub(crate) fn cgroups(&self) -> &Arc<CgroupTree> {
        &self.cgroups
    }

    pub(crate) fn locate(&self, spec: &SandboxSpec) -> Result<PodCgroups, SandboxError> {
        let located = self.cgroups.locate(spec);
        located.map_err(SandboxError::step(&spec.id, "find the cgroups"))
    }

    /// The directory of the container of this name, if it is the sandbox's.
    pub(crate) fn directory(&self, name: &str, id: &SandboxId) -> Directory {
        Directory::new(&self.options.lxc_path, name, id)
    }

    /// Ids of a sandbox whose spec names none.
    pub(crate) fn ids(&self) -> IdMapping {
        IdMapping {
            container_id: 0,
            host_id: self.options.id_base,
            length: self.options.id_count,
        }
    }

    /// Something is missing on this machine.
    pub(crate) fn unavailable(&self, reason: impl Into<String>) -> SandboxError {
        SandboxError::Unavailable {
            backend: self.backend,
            reason: reason.into(),
        }
    }

    /// The same, because of an error with its causes.
    pub(crate) fn unavailable_by(&self, error: &dyn std::error::Error) -> SandboxError {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let words: Vec<String> = causes.map(ToString::to_string).collect();
        self.unavailable(words.join(": "))
    }

    /// Namespaces that a pod without a user namespace of its own has from the host's root. They must stay open until the container is in
    /// them.
    pub(crate) async fn shared_namespaces(
        &self,
        spec: &SandboxSpec,
    ) -> Result<Option<SharedNamespaces>, SandboxError> {
        if spec.user_namespace.is_some() {
            return Ok(None);
        }
        let made = SharedNamespaces::make(&spec.hostname).await;
        made.map(Some)
            .map_err(SandboxError::step(&spec.id, "make the namespaces"))
    }

    /// Builds texts of LXC configuration from all that they depend on. `hook` is the command that LXC runs when the container has
    /// stopped.
    pub(crate) async fn with_shell<T>(
        &self,
        spec: &SandboxSpec,
        cgroups: &PodCgroups,
        shared: Option<&SharedNamespaces>,
        hook: &str,
        build: impl FnOnce(&Shell<'_>) -> T,
    ) -> Result<T, SandboxError> {
        let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        let shared = shared.map(|shared| (path(&shared.ipc), path(&shared.uts)));
        let rootfs = self.options.rootfs.clone();
        let mount = blocking(&spec.id, "examine the sandbox's root", move || {
            Ok(rustix::fs::statvfs(rootfs.as_std_path())?)
        })
        .await?;
        Ok(build(&Shell {
            rootfs: &self.options.rootfs,
            atime: atime_option(mount.f_flag),
            relative_pod: self.cgroups.relative(&cgroups.pod),
            ids: self.ids(),
            shared: shared.as_ref().map(|(ipc, uts)| Shared { ipc, uts }),
            apparmor_profile: self.apparmor_profile(),
            hook,
        }))
    }

    fn apparmor_profile(&self) -> Option<&str> {
        match (check::has_apparmor(), self.options.apparmor) {
            (false, _) => None,
            (true, true) => {
                let own = self.options.apparmor_profile.as_deref();
                Some(own.unwrap_or(GENERATED_PROFILE))
            }
            // Without the key LXC takes its default profile.
            (true, false) => Some("unconfined"),
        }
    }

    /// Starts the container of this name, whose directory has its configuration, in the pod's cgroup; returns when it runs.
    pub(crate) async fn launch(
        &self,
        spec: &SandboxSpec,
        name: &str,
        directory: &Directory,
    ) -> Result<(), SandboxError> {
        let id = &spec.id;
        let program = check::lxc_start().map_err(|e| self.unavailable_by(&e))?;
        let command = Command::new(&program, START_DEADLINE)
            .args(["--daemon", "--quiet", "--name", name])
            .args(["--lxcpath", self.options.lxc_path.as_str()])
            .args(["--rcfile", directory.config().as_str()])
            .args(["--logfile", directory.log().as_str()])
            .args(["--logpriority", "WARN"])
            .env("PATH", PATH)
            .linger(LINGER);
        // In the pod's cgroup: its monitor, and all that the monitor starts, are born there.
        let holder = &self.options.holder;
        match self.cgroups.run_first(spec, command, holder).await {
            Ok(_) => Ok(()),
            Err(FirstError::Command(error)) => Err(explain(id, directory, error).await),
            Err(FirstError::Cgroup(error)) => {
                Err(SandboxError::step(id, "make the cgroups")(error))
            }
        }
    }

    /// What a container that runs still lacks: limits and sysctls.
    pub(crate) async fn complete(
        &self,
        spec: &SandboxSpec,
        cgroups: &PodCgroups,
    ) -> Result<SandboxInit, SandboxError> {
        match self.try_complete(spec, cgroups).await {
            Err(error) if self.cgroups.init(cgroups).await.is_none() => {
                Err(SandboxError::ended(&spec.id, error))
            }
            completed => completed,
        }
    }

    async fn try_complete(
        &self,
        spec: &SandboxSpec,
        cgroups: &PodCgroups,
    ) -> Result<SandboxInit, SandboxError> {
        let id = &spec.id;
        self.cgroups
            .settle(cgroups, &spec.resources)
            .await
            .map_err(SandboxError::step(id, "set the pod's limits"))?;
        nexcage_failpoint::hit("lxc.settled");

        let init = self.cgroups.init(cgroups).await.ok_or_else(|| {
            SandboxError::step(id, "find the init")(io::Error::other("it ended at once"))
        })?;
        apply_sysctls(init.pid, &spec.sysctls)
            .await
            .map_err(SandboxError::step(id, "set the sysctls"))?;
        Ok(init)
    }

    /// Gives a running pod the limits that its spec now has.
    pub(crate) async fn limit(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        let limited = self
            .cgroups
            .limit(&self.locate(spec)?, &spec.resources)
            .await;
        limited.map_err(SandboxError::step(&spec.id, "change the pod's limits"))
    }

    /// Ends everything in the pod's cgroups.
    pub(crate) async fn end(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.end_all(&spec.id, &[self.locate(spec)?]).await
    }

    /// Ends everything in the pod's cgroups, wherever crashes left them.
    pub(crate) async fn end_leftover(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let pods = self.cgroups.find(id).await;
        let pods = pods.map_err(SandboxError::step(id, "find the cgroups"))?;
        self.end_all(id, &pods).await
    }

    async fn end_all(&self, id: &SandboxId, pods: &[PodCgroups]) -> Result<(), SandboxError> {
        for cgroups in pods {
            if let Some(init) = self.cgroups.init(cgroups).await {
                init.terminate(INIT_PATIENCE).await;
            }
            self.cgroups
                .kill(cgroups, MONITOR_PATIENCE)
                .await
                .map_err(SandboxError::step(id, "end the processes"))?;
        }
        nexcage_failpoint::hit("lxc.killed");
        for cgroups in pods {
            self.cgroups
                .end(cgroups)
                .await
                .map_err(SandboxError::step(id, "remove the cgroups"))?;
        }
        nexcage_failpoint::hit("lxc.cgroups-removed");
        Ok(())
    }

    /// Ids of sandboxes that have cgroups, and of those that `marked` finds in the directory of containers; it may block.
    pub(crate) async fn leftovers(
        &self,
        marked: impl FnOnce() -> io::Result<Vec<SandboxId>> + Send + 'static,
    ) -> Result<Vec<SandboxId>, SandboxError> {
        let found = self.cgroups.leftovers().await;
        let mut ids = found.map_err(|e| self.unavailable_by(&e))?;
        let marked = tokio::task::spawn_blocking(marked).await;
        match marked.map_err(io::Error::from).flatten() {
            Ok(marked) => ids.extend(marked),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                let path = &self.options.lxc_path;
                return Err(self.unavailable(format!("lxc_path {path} cannot be read: {e}")));
            }
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// Removes what LXC left of the container of this name, its directory last: by that it is found again. Blocks.
    pub(crate) fn remove_container(&self, name: &str, directory: &Directory) -> io::Result<()> {
        // A pod is not kept for the sake of a profile that nobody can take away from here, as in a container.
        if let Err(error) = profile::remove(name, &self.options.lxc_path) {
            tracing::warn!(%name, %error, "the AppArmor profile that LXC made stays until the next boot");
        }
        match std::fs::remove_file(self.lock_file(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if let Some(log) = log_file(&self.options.lxc_path, name)
            && let Err(error) = std::fs::remove_file(&log)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%log, %error, "LXC's log of a container that is gone stays");
        }
        directory.remove()
    }

    fn lock_file(&self, name: &str) -> Utf8PathBuf {
        let below = self.options.lxc_path.as_str().trim_start_matches('/');
        Utf8PathBuf::from(LOCKS)
            .join(below)
            .join(format!(".{name}"))
    }
}

/// The log of LXC's tools, where it is not removed with the container's directory.
fn log_file(lxc_path: &Utf8Path, name: &str) -> Option<Utf8PathBuf> {
    (lxc_path == USUAL_LXC_PATH).then(|| Utf8PathBuf::from(LOGS).join(format!("{name}.log")))
}

/// Adds what LXC's log says to a failed start.
async fn explain(id: &SandboxId, directory: &Directory, error: CommandError) -> SandboxError {
    let log = tokio::fs::read_to_string(directory.log()).await;
    let doing = match log.ok().and_then(|log| log::reason(&log)) {
        Some(reason) => format!("start the LXC container: {reason}"),
        None => "start the LXC container".to_owned(),
    };
    SandboxError::step(id, doing)(error)
}

/// The outcome of a start; of one that failed nothing stays.
pub(crate) async fn or_remove<B: SandboxBackend>(
    backend: &B,
    spec: &SandboxSpec,
    started: Result<RunningSandbox, SandboxError>,
) -> Result<RunningSandbox, SandboxError> {
    if started.is_err()
        && let Err(error) = backend.remove(spec).await
    {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(sandbox = %spec.id, error, "a sandbox that did not start cannot be cleaned up");
    }
    started
}

/// Runs file operations where they block no worker.
pub(crate) async fn blocking<T: Send + 'static>(
    id: &SandboxId,
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SandboxError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::from)
        .flatten()
        .map_err(SandboxError::step(id, doing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lxc_keeps_logs_apart_for_its_usual_directory_only() {
        let log = |lxc_path: &str| log_file(lxc_path.into(), "900000");
        let usual = log("/var/lib/lxc").unwrap();
        assert_eq!(usual, "/var/log/lxc/900000.log");
        assert_eq!(log("/var/lib/lxc/"), Some(usual));
        assert_eq!(log("/srv/lxc"), None);
    }
}
