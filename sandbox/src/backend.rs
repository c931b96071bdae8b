//! The seam: what every shell of a pod can do.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::cgroup::PodCgroups;
use crate::error::SandboxError;
use crate::process::SandboxInit;

/// Identity of a pod sandbox: 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SandboxId(pub String);

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose namespace a pod uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceMode {
    /// The pod has its own.
    Pod,
    /// The host's.
    Node,
}

/// One range of a user namespace's mapping (user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub container_id: u32,
    /// First id outside.
    pub host_id: u32,
    /// How many.
    pub length: u32,
}

/// A pod's own user namespace (`hostUsers: false`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

impl UserNamespace {
    /// The host's number of its root, user and group; 0 if there is no mapping.
    pub fn root(&self) -> u32 {
        self.uids.first().map_or(0, |range| range.host_id)
    }

    /// Whether there is such a user or group inside.
    pub fn has(&self, id: u32) -> bool {
        let inside = |range: &IdMapping| {
            id.checked_sub(range.container_id)
                .is_some_and(|offset| offset < range.length)
        };
        self.uids.iter().any(inside)
    }
}

/// Limits of the whole pod; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodResources {
    /// `memory.max` in bytes.
    pub memory_bytes: Option<u64>,
    /// `memory.swap.max` in bytes.
    pub swap_bytes: Option<u64>,
    /// CPU quota in microseconds of each period.
    pub cpu_quota_us: Option<u64>,
    /// CPU period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Relative weight as CRI gives it (1024 is one CPU).
    pub cpu_shares: Option<u64>,
}

/// Everything a backend needs to start the shell of a pod. Made once, kept in the
/// database as JSON, handed to the backend again after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The pod sandbox.
    pub id: SandboxId,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Host name inside; valid (RFC 1123, at most 63 bytes), never empty.
    pub hostname: String,
    /// kubelet's cgroup for the pod: `/kubepods.slice/...pod<uid>.slice` with the systemd driver, a path with the
    /// cgroupfs driver, or empty.
    pub cgroup_parent: String,
    /// Network namespace.
    pub network: NamespaceMode,
    /// The pod's own network namespace, pinned here by the caller before `start`. `None` with the host's
    /// network, and where the backend makes one inside the pod's user namespace.
    pub netns: Option<Utf8PathBuf>,
    /// IPC namespace.
    pub ipc: NamespaceMode,
    /// PID namespace: `Pod` means app containers may share the sandbox's.
    pub pid: NamespaceMode,
    /// `Some`: app containers live in this user namespace. `None`: in the host's.
    pub user_namespace: Option<UserNamespace>,
    /// Some container of the pod may be privileged.
    pub privileged: bool,
    /// Kernel parameters of the pod's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of the pod.
    pub resources: PodResources,
    /// Pod annotations that the runtime handler lets through.
    pub annotations: BTreeMap<String, String>,
    /// A directory of the sandbox's own, on tmpfs; the backend may write below
    /// `<run_dir>/backend/` and nowhere else in it.
    pub run_dir: Utf8PathBuf,
}

/// A shell that runs.
///
/// Its init has namespaces of its own even where the spec says [`NamespaceMode::Node`] and the backend cannot do
/// without them (LXC: IPC and PID): an app container joins only those that the pod has as [`NamespaceMode::Pod`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningSandbox {
    /// Its first process, as the host numbers it. Holds the pod's namespaces: they are joined by
    /// `/proc/<init>/ns/<name>`.
    pub init: SandboxInit,
    /// Where app containers, conmon and statistics belong.
    pub cgroups: PodCgroups,
    /// The container's name as its own tools show it: `nexcage-<id>` in `lxc-ls`, the VMID in `pct list`. `None` where the shell is
    /// no container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// What others made of a running sandbox, for backends whose containers an administrator can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    /// As it was made.
    AsMade,
    /// Its configuration was edited. The sandbox goes on as it is, and the edit is reported, not undone.
    Edited(Vec<Edit>),
    /// It was taken away: what still runs of it must be ended.
    Lost {
        /// What is missing, as a sentence without a full stop.
        reason: String,
    },
}

/// One difference between what a sandbox's pod wants and what its container's configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The key, as the administrator sees it.
    pub key: String,
    /// What nexcage wrote; `None` if it did not write the key.
    pub ours: Option<String>,
    /// What is there now; `None` if the key is gone.
    pub theirs: Option<String>,
}

/// What a backend says of a sandbox that it once started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// The init process lives.
    Running(RunningSandbox),
    /// There is no living init; something may be left to remove.
    Stopped,
}

/// Makes, finds and ends the shells of pods.
///
/// All names a backend uses on the machine (LXC container, scope, cgroup, bundle)
/// follow from the sandbox id, so `stop` and `remove` work from the spec alone, after a
/// crash between any two steps of `start` too. One caller at a time per sandbox.
#[async_trait]
pub trait SandboxBackend: Send + Sync + fmt::Debug {
    /// The backend's name as in the configuration: `lxc`, `host`.
    fn name(&self) -> &'static str;

    /// Proves that sandboxes can be started: programs, kernel features, rights.
    async fn check(&self) -> Result<(), SandboxError>;

    /// Refuses, by field, a spec that this backend cannot honour. No side effects.
    fn validate(&self, spec: &SandboxSpec) -> Result<(), SandboxError>;

    /// Starts the shell. When it fails, nothing is left behind.
    ///
    /// Sets the spec's sysctls, hostname and limits; does not do networking. Where the spec names no network namespace, a pod
    /// with its own gets an empty one with only `lo`, perhaps down.
    ///
    /// Run it in a task that nobody cancels: a dropped future cleans up nothing, and [`remove`](Self::remove) must follow
    /// then, as after a crash.
    async fn start(&self, spec: &SandboxSpec) -> Result<RunningSandbox, SandboxError>;

    /// What is there now.
    async fn inspect(&self, spec: &SandboxSpec) -> Result<SandboxState, SandboxError>;

    /// Gives a running shell the limits that `spec.resources` now has.
    async fn update(&self, spec: &SandboxSpec) -> Result<(), SandboxError>;

    /// What others made of a running shell; asked from time to time. Changes nothing.
    async fn audit(&self, _spec: &SandboxSpec) -> Result<Audit, SandboxError> {
        Ok(Audit::AsMade)
    }

    /// Ends the shell and every process in the pod's cgroups, and waits until they are gone. `Ok` when
    /// there is nothing.
    async fn stop(&self, spec: &SandboxSpec) -> Result<(), SandboxError>;

    /// Removes everything the backend ever made for it, stopping it first. `Ok` when there is nothing.
    async fn remove(&self, spec: &SandboxSpec) -> Result<(), SandboxError>;

    /// Removes what crashes left that tells of no sandbox. Once, at the start, while no sandbox is being made.
    async fn tidy(&self) -> Result<(), SandboxError> {
        Ok(())
    }

    /// Ids of all sandboxes of this nexcage (by its name prefix) of which anything is left on the machine, running ones
    /// too, for the reconciler, which asks from time to time, while others are made and removed. Those of other owners are never named; those of other backends may be, since cgroups
    /// do not tell what made them: an id that the database knows is no leftover, whatever its backend.
    async fn leftovers(&self) -> Result<Vec<SandboxId>, SandboxError>;

    /// Removes all of a sandbox of which only the id is known. Same promises as `remove`.
    async fn remove_leftover(&self, id: &SandboxId) -> Result<(), SandboxError>;
}
