//! The pod's place in the cgroup tree.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

/// Cgroups of one pod. Absolute paths below the cgroup v2 mount (`/sys/fs/cgroup`, or
/// `/sys/fs/cgroup/unified` on a hybrid host).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodCgroups {
    /// The pod's own: `nexcage-<id>.scope`, or a directory of that name without systemd.
    pub pod: Utf8PathBuf,
    /// For the LXC monitor and every conmon.
    pub monitor: Utf8PathBuf,
    /// The container's: parent of all app containers' cgroups, counted as the pod's usage.
    pub container: Utf8PathBuf,
    /// Whether limits can be set and memory is accounted there (false on a hybrid host: the tree then only tells
    /// processes apart and kills them).
    pub controllers: bool,
}
