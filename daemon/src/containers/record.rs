//! What is known of one container, and what may happen to it when.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::config::ContainerSpec;

/// Where a container is in its life. Written to the database before the step it names is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ContainerPhase {
    /// Being made. Found like this at start, it was never reported to anybody: it is removed.
    Creating,
    /// Made, not started.
    Created,
    /// Started, and not known to have ended.
    Running,
    /// Being taken back to a checkpoint of its root filesystem: ended to be started again. Found like this at
    /// start, that is finished.
    Restoring,
    /// Ended.
    Exited,
    /// Being removed. Found like this at start, the removal is finished.
    Removing,
}

impl ContainerPhase {
    /// StartContainer is possible.
    pub(crate) fn can_start(self) -> bool {
        self == Self::Created
    }

    /// ExecSync and statistics are possible.
    pub(crate) fn is_running(self) -> bool {
        self == Self::Running
    }

    /// It has, or may have, a living process.
    pub(crate) fn may_live(self) -> bool {
        matches!(self, Self::Created | Self::Running)
    }

    /// CRI clients may see it.
    pub(crate) fn is_visible(self) -> bool {
        self != Self::Creating
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Exit status; 128 + n for signal n.
    pub(crate) code: i32,
    /// Nanoseconds since 1970.
    pub(crate) finished_at: i64,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or `Unknown`, as containerd and CRI-O say it.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
}

/// A process, safe against reuse of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub(crate) start_time: u64,
}

/// A container as the database has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) pod_id: String,
    pub(crate) phase: ContainerPhase,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    /// Nanoseconds since 1970; 0 until started.
    pub(crate) started_at: i64,
    pub(crate) exit: Option<Exit>,
    pub(crate) spec: ContainerSpec,
    /// The image's id: digest of its config.
    pub(crate) image_id: String,
    /// Absolute.
    pub(crate) log_path: Utf8PathBuf,
    /// The OCI bundle.
    pub(crate) bundle: Utf8PathBuf,
    /// Its first process, once created.
    pub(crate) init: Option<ProcessId>,
    /// Its monitor, once created.
    pub(crate) conmon: Option<ProcessId>,
    /// Signal that asks it to end.
    pub(crate) stop_signal: i32,
    /// Who it runs as.
    pub(crate) user: RunsAs,
    /// The checkpoint it is being taken back to.
    #[serde(default)]
    pub(crate) restoring: Option<String>,
    /// Root filesystems mounted for its image volumes, by name in the layer store.
    pub(crate) image_volumes: Vec<ImageVolume>,
}

/// Ids of a container's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunsAs {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// An image mounted into the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageVolume {
    /// Where in the container.
    pub(crate) container_path: String,
    /// Its name in the layer store.
    pub(crate) rootfs: String,
    /// The image's id.
    pub(crate) image_id: String,
}
