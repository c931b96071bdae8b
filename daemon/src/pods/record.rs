//! What is known of one pod, and what may happen to it when.

use std::net::IpAddr;

use camino::Utf8PathBuf;
use nexcage_sandbox::{RunningSandbox, SandboxSpec};
use serde::{Deserialize, Serialize};

use super::spec::PodSpec;

/// Where a pod is in its life. Written to the database before the step it names is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PodPhase {
    /// Being made. A pod found like this at start was never reported to anybody: it is removed.
    Creating,
    /// Its sandbox runs and its network is there.
    Ready,
    /// Its sandbox has ended, by StopPodSandbox or by itself; what is left of it is being, or still to be,
    /// torn down.
    NotReady,
    /// Being removed. Found like this at start, the removal is finished.
    Removing,
}

impl PodPhase {
    /// Containers can be created and started in it.
    pub(crate) fn can_hold_containers(self) -> bool {
        matches!(self, Self::Ready)
    }

    /// CRI clients may see it.
    pub(crate) fn is_visible(self) -> bool {
        matches!(self, Self::Ready | Self::NotReady | Self::Removing)
    }
}

/// A pod as the database has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) id: String,
    pub(crate) phase: PodPhase,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    pub(crate) spec: PodSpec,
    /// The runtime handler asked for; empty is the default one.
    pub(crate) handler: String,
    /// The backend that made it.
    pub(crate) backend: String,
    /// What the backend was given.
    pub(crate) sandbox: SandboxSpec,
    /// The limits in `sandbox` are being changed: those of the cgroup may still be others.
    #[serde(default)]
    pub(crate) limits_pending: bool,
    /// What the backend gave back, once it runs.
    pub(crate) running: Option<RunningSandbox>,
    /// The pinned network namespace; none with the host's network.
    pub(crate) netns: Option<Utf8PathBuf>,
    pub(crate) ips: Vec<IpAddr>,
    /// The CNI result, for `crictl inspectp`.
    pub(crate) cni_result: Option<serde_json::Value>,
    /// Why it ended without having been asked to.
    #[serde(default)]
    pub(crate) ended: Option<String>,
    /// Everything outside the record has been torn down: StopPodSandbox has nothing left to do.
    pub(crate) torn_down: bool,
}
