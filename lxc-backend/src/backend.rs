//! Plain LXC.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use nexcage_command::{Command, CommandError, Program};
use nexcage_sandbox::{
    CgroupTree, FirstError, IdMapping, PodCgroups, RunningSandbox, SandboxBackend, SandboxError,
    SandboxId, SandboxInit, SandboxSpec, SandboxState, SharedNamespaces, apply_sysctls,
    validate_spec,
};

use crate::check;
use crate::config::{GENERATED_PROFILE, Shared, Shell, atime_option, config};
use crate::directory::Directory;
use crate::{log, profile};

const NAME: &str = "lxc";

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

/// What the `lxc` backend needs to know.
#[derive(Clone, Debug)]
pub struct LxcOptions {
    /// Directory of all LXC containers (`lxc.lxcpath`), usually `/var/lib/lxc`. It and every directory above it must
    /// let others pass (`o+x`).
    pub lxc_path: Utf8PathBuf,
    /// The tree made by [`ensure_rootfs`](nexcage_sandbox::ensure_rootfs). Every directory above it must let others
    /// pass (`o+x`): the sandbox's root is nobody on the host.
    pub rootfs: Utf8PathBuf,
    /// First host id that the ids of a sandbox without a user namespace of its own are mapped to.
    pub id_base: u32,
    /// How many ids are mapped.
    pub id_count: u32,
    /// Whether sandboxes are confined, where the kernel has AppArmor.
    pub apparmor: bool,
    /// The AppArmor profile; without one LXC generates it.
    pub apparmor_profile: Option<String>,
    /// The program with the hidden subcommand `hold` ([`nexcage_command::hold`]): nexcage itself, by
    /// [`Program::myself`].
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

    async fn try_start(&self, spec: &SandboxSpec) -> Result<RunningSandbox, SandboxError> {
        let id = &spec.id;
        let cgroups = self.locate(spec)?;
        let directory = self.directory(id);
        // Open until the container is in them.
        let shared = match spec.user_namespace {
            None => Some(SharedNamespaces::make(&spec.hostname).await),
            Some(_) => None,
        };
        let shared = shared
            .transpose()
            .map_err(SandboxError::step(id, "make the namespaces"))?;
        self.write_config(spec, &cgroups, &directory, shared.as_ref())
            .await?;
        nexcage_failpoint::hit("lxc.config-written");

        self.launch(spec, &directory).await?;
        drop(shared);
        nexcage_failpoint::hit("lxc.started");

        self.cgroups
            .settle(&cgroups, &spec.resources)
            .await
            .map_err(SandboxError::step(id, "set the pod's limits"))?;
        nexcage_failpoint::hit("lxc.settled");

        let init = self.cgroups.init(&cgroups).await.ok_or_else(|| {
            SandboxError::step(id, "find the init")(io::Error::other("it ended at once"))
        })?;
        apply_sysctls(init.pid, &spec.sysctls)
            .await
            .map_err(SandboxError::step(id, "set the sysctls"))?;
        Ok(self.running(id, init, cgroups))
    }

    fn running(&self, id: &SandboxId, init: SandboxInit, cgroups: PodCgroups) -> RunningSandbox {
        RunningSandbox {
            init,
            cgroups,
            container: Some(self.cgroups.name(id)),
        }
    }

    async fn write_config(
        &self,
        spec: &SandboxSpec,
        cgroups: &PodCgroups,
        directory: &Directory,
        shared: Option<&SharedNamespaces>,
    ) -> Result<(), SandboxError> {
        let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        let shared = shared.map(|shared| (path(&shared.ipc), path(&shared.uts)));
        let profile = match (check::has_apparmor(), self.options.apparmor) {
            (false, _) => None,
            (true, true) => Some(
                self.options
                    .apparmor_profile
                    .as_deref()
                    .unwrap_or(GENERATED_PROFILE),
            ),
            // Without the key LXC takes its default profile.
            (true, false) => Some("unconfined"),
        };
        let rootfs = self.options.rootfs.clone();
        let mount = blocking(&spec.id, "examine the sandbox's root", move || {
            Ok(rustix::fs::statvfs(rootfs.as_std_path())?)
        })
        .await?;
        let text = config(
            spec,
            &Shell {
                rootfs: &self.options.rootfs,
                atime: atime_option(mount.f_flag),
                cgroups,
                relative_pod: self.cgroups.relative(&cgroups.pod),
                ids: IdMapping {
                    container_id: 0,
                    host_id: self.options.id_base,
                    length: self.options.id_count,
                },
                shared: shared.as_ref().map(|(ipc, uts)| Shared { ipc, uts }),
                apparmor_profile: profile,
            },
        );
        let directory = directory.clone();
        blocking(&spec.id, "write the LXC configuration", move || {
            directory.make()?;
            std::fs::write(directory.config(), text)
        })
        .await
    }

    /// Starts the container in the pod's cgroup; returns when it runs.
    async fn launch(&self, spec: &SandboxSpec, directory: &Directory) -> Result<(), SandboxError> {
        let id = &spec.id;
        let program = check::lxc_start().map_err(|e| SandboxError::Unavailable {
            backend: NAME,
            reason: e.to_string(),
        })?;
        let command = Command::new(&program, START_DEADLINE)
            .args(["--daemon", "--quiet", "--name", &self.cgroups.name(id)])
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

    /// Ends everything in the pod's cgroups, wherever they are, and removes them.
    async fn end(&self, id: &SandboxId, pods: &[PodCgroups]) -> Result<(), SandboxError> {
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

    async fn remove_files(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let directory = self.directory(id);
        let lock = self.lock_file(id);
        let (name, lxc_path) = (self.cgroups.name(id), self.options.lxc_path.clone());
        blocking(id, "remove the LXC container", move || {
            directory.remove()?;
            // A pod is not kept for the sake of a profile that nobody can take away from here, as in a container.
            if let Err(error) = profile::remove(&name, &lxc_path) {
                tracing::warn!(%name, %error, "the AppArmor profile that LXC made stays until the next boot");
            }
            match std::fs::remove_file(lock) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            }
        })
        .await?;
        nexcage_failpoint::hit("lxc.removed");
        Ok(())
    }

    fn lock_file(&self, id: &SandboxId) -> Utf8PathBuf {
        let below = self.options.lxc_path.as_str().trim_start_matches('/');
        let name = format!(".{}", self.cgroups.name(id));
        Utf8PathBuf::from(LOCKS).join(below).join(name)
    }

    fn directory(&self, id: &SandboxId) -> Directory {
        Directory::new(&self.options.lxc_path, &self.cgroups.name(id), id)
    }

    fn locate(&self, spec: &SandboxSpec) -> Result<PodCgroups, SandboxError> {
        let located = self.cgroups.locate(spec);
        located.map_err(SandboxError::step(&spec.id, "find the cgroups"))
    }
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

/// Runs file operations where they block no worker.
async fn blocking<T: Send + 'static>(
    id: &SandboxId,
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SandboxError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::from)
        .flatten()
        .map_err(SandboxError::step(id, doing))
}

#[async_trait]
impl SandboxBackend for LxcBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn check(&self) -> Result<(), SandboxError> {
        let checked = check::check(&self.options, &self.cgroups).await;
        checked.map_err(|reason| SandboxError::Unavailable {
            backend: NAME,
            reason,
        })
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
            Some(init) => SandboxState::Running(self.running(&spec.id, init, cgroups)),
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
        self.remove_files(&spec.id).await
    }

    async fn leftovers(&self) -> Result<Vec<SandboxId>, SandboxError> {
        let unavailable = |reason: String| SandboxError::Unavailable {
            backend: NAME,
            reason,
        };
        let mut ids = self
            .cgroups
            .leftovers()
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        let (lxc_path, cgroups) = (self.options.lxc_path.clone(), Arc::clone(&self.cgroups));
        let containers = tokio::task::spawn_blocking(move || -> io::Result<Vec<SandboxId>> {
            let mut ids = Vec::new();
            for entry in lxc_path.read_dir_utf8()? {
                let entry = entry?;
                let name = entry.file_name();
                if let Some(id) = cgroups.id_of(name)
                    && Directory::new(&lxc_path, name, &id).is_ours()
                {
                    ids.push(id);
                }
            }
            Ok(ids)
        });
        match containers.await.map_err(io::Error::from).flatten() {
            Ok(containers) => ids.extend(containers),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                let path = &self.options.lxc_path;
                return Err(unavailable(format!("lxc_path {path} cannot be read: {e}")));
            }
        }
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
        self.end(id, &pods).await?;
        self.remove_files(id).await
    }
}
