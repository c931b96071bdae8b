//! The pod's place in the cgroup tree.

use camino::{Utf8Path, Utf8PathBuf};
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

/// Which cgroup hierarchies a machine has mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupHost {
    /// Cgroup v2 alone, as on every current distribution.
    V2 {
        /// Its mount point, `/sys/fs/cgroup`.
        root: Utf8PathBuf,
    },
    /// Cgroup v1 controllers beside a cgroup v2 tree that has none: processes can be told apart and killed, but there
    /// are no limits and no memory accounting.
    Hybrid {
        /// Mount point of the v2 tree, `/sys/fs/cgroup/unified`.
        root: Utf8PathBuf,
        /// Mount points of the v1 hierarchies. LXC makes cgroups there as well.
        v1: Vec<Utf8PathBuf>,
    },
    /// No cgroup v2 tree is mounted.
    None,
}

impl CgroupHost {
    /// What is mounted below `/sys/fs/cgroup`. Whoever asks first should tell the user once about
    /// [`Hybrid`](Self::Hybrid): pods then run without limits.
    ///
    /// # Errors
    ///
    /// When `/proc/self/mounts` cannot be read.
    pub fn detect() -> std::io::Result<Self> {
        Ok(Self::of(&std::fs::read_to_string("/proc/self/mounts")?))
    }

    /// As [`detect`](Self::detect), from the text of a mount table (fstab(5)).
    fn of(mounts: &str) -> Self {
        let base = Utf8Path::new("/sys/fs/cgroup");
        let mut v1 = Vec::new();
        let mut v2 = None;
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(point), Some(kind)) = (fields.next(), fields.next()) else {
                continue;
            };
            let point = Utf8Path::new(point);
            if !point.starts_with(base) {
                continue;
            }
            match kind {
                "cgroup" if !v1.iter().any(|known| known == point) => v1.push(point.to_owned()),
                "cgroup2" => v2 = Some(point.to_owned()),
                _ => {}
            }
        }
        match v2 {
            None => Self::None,
            Some(root) if v1.is_empty() => Self::V2 { root },
            Some(root) => Self::Hybrid { root, v1 },
        }
    }

    /// Mount point of the cgroup v2 tree.
    pub fn root(&self) -> Option<&Utf8Path> {
        match self {
            Self::V2 { root } | Self::Hybrid { root, .. } => Some(root),
            Self::None => None,
        }
    }

    /// Mount points of all hierarchies, cgroup v2 first.
    pub(crate) fn roots(&self) -> Vec<Utf8PathBuf> {
        match self {
            Self::V2 { root } => vec![root.clone()],
            Self::Hybrid { root, v1 } => std::iter::once(root).chain(v1).cloned().collect(),
            Self::None => Vec::new(),
        }
    }

    /// Whether limits can be set.
    pub fn has_controllers(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_kinds_of_hosts_apart() {
        let v2 = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        assert_eq!(
            CgroupHost::of(v2),
            CgroupHost::V2 {
                root: "/sys/fs/cgroup".into()
            }
        );
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            CgroupHost::of(hybrid),
            CgroupHost::Hybrid {
                root: "/sys/fs/cgroup/unified".into(),
                v1: vec!["/sys/fs/cgroup/cpu".into()]
            }
        );
        assert_eq!(
            CgroupHost::of("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"),
            CgroupHost::None
        );
        // Somebody's private mount elsewhere is not the machine's.
        assert_eq!(
            CgroupHost::of("x /mnt/cg cgroup2 rw 0 0\n"),
            CgroupHost::None
        );
    }
}
