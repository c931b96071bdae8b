//! The verbs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::error::PveError;

/// One node of a Proxmox VE cluster, as its API shows it. Every call has a deadline; calls that change one container are made one
/// after the other.
#[async_trait]
pub trait Pve: Send + Sync + fmt::Debug {
    /// `GET /version`: the version of pve-manager, `9.2.11`. Proves that the API answers and takes the token.
    async fn version(&self) -> Result<String, PveError>;

    /// `GET /cluster/status`: members and quorum.
    async fn cluster(&self) -> Result<ClusterStatus, PveError>;

    /// `GET /access/permissions`: what the token may do.
    async fn permissions(&self) -> Result<Permissions, PveError>;

    /// `GET /nodes/<node>/lxc`: the containers of this node that the token may see.
    async fn containers(&self) -> Result<Vec<CtSummary>, PveError>;

    /// `GET /nodes/<node>/lxc/<vmid>/status/current`.
    async fn status(&self, vmid: u32) -> Result<CtStatus, PveError>;

    /// `POST /nodes/<node>/lxc/<vmid>/status/start`; returns when the task has ended well, or at once if it runs already.
    async fn start(&self, vmid: u32) -> Result<(), PveError>;

    /// `POST /nodes/<node>/lxc/<vmid>/status/stop`; returns when the task has ended well, or at once if it does not run.
    async fn stop(&self, vmid: u32) -> Result<(), PveError>;

    /// `POST /nodes/<node>/lxc/<vmid>/status/shutdown`; returns when the task has ended well, or at once if it does not run.
    async fn shutdown(&self, vmid: u32, timeout: Duration) -> Result<(), PveError>;
}

/// Members and quorum of a cluster; a node without one is a cluster of itself, and quorate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The cluster's name; `None` on a node of its own.
    pub name: Option<String>,
    /// Whether configurations can be written.
    pub quorate: bool,
    /// Names of nodes, and whether they are online.
    pub nodes: BTreeMap<String, bool>,
}

/// Privileges by path, and whether each is also held below the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions(pub BTreeMap<String, BTreeMap<String, bool>>);

/// Paths that Proxmox always lists if anything is held there. What is held above one that is missing was taken away there.
const ALWAYS_LISTED: [&str; 8] = [
    "/",
    "/access",
    "/access/groups",
    "/nodes",
    "/pool",
    "/sdn",
    "/storage",
    "/vms",
];

impl Permissions {
    /// Whether `privilege` is held on `path`: by what is granted there or else by the nearest grant above that goes further down.
    /// Proxmox does not tell of a path below these where everything is taken away.
    pub fn has(&self, path: &str, privilege: &str) -> bool {
        if let Some(held) = self.0.get(path) {
            return held.contains_key(privilege);
        }
        let mut place = path;
        while !ALWAYS_LISTED.contains(&place) || self.0.contains_key(place) {
            let Some(above) = parent(place) else {
                return false;
            };
            place = above;
            if let Some(held) = self.0.get(place)
                && held.values().any(|inherited| *inherited)
            {
                return held.get(privilege) == Some(&true);
            }
        }
        false
    }
}

/// The path above, if there is one.
fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", "") => None,
        ("", _) => Some("/"),
        (above, _) => Some(above),
    }
}

/// A line of `pct list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtSummary {
    /// Its number.
    pub vmid: u32,
    /// Its host name.
    pub name: String,
    /// Whether it runs.
    pub running: bool,
    /// Tags, `;` between them in the configuration.
    pub tags: Vec<String>,
}

/// What Proxmox shows of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct CtStatus {
    /// Whether it runs.
    pub running: bool,
    /// Its host name.
    pub name: String,
    /// Bytes of memory in use, without the page cache.
    pub memory_bytes: u64,
    /// Bytes it may use.
    pub max_memory_bytes: u64,
    /// CPUs in use, 1.0 being one of them.
    pub cpu: f64,
    /// CPUs it may use.
    pub cpus: f64,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// What it is locked by.
    pub lock: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(grants: &[(&str, &[(&str, bool)])]) -> Permissions {
        let of = |privileges: &[(&str, bool)]| {
            let named = privileges.iter();
            named
                .map(|(name, down)| ((*name).to_owned(), *down))
                .collect()
        };
        let paths = grants.iter();
        Permissions(
            paths
                .map(|(path, held)| ((*path).to_owned(), of(held)))
                .collect(),
        )
    }

    #[test]
    fn privileges_are_inherited_until_a_path_of_its_own() {
        let permissions = held(&[
            ("/", &[("Sys.Audit", true)]),
            ("/nodes", &[("Sys.Audit", true)]),
            ("/vms", &[("VM.Audit", true)]),
        ]);
        assert!(permissions.has("/vms/900000", "VM.Audit"));
        assert!(permissions.has("/vms", "VM.Audit"));
        assert!(!permissions.has("/vms/900000", "Sys.Audit"));
        assert!(permissions.has("/nodes/pve1", "Sys.Audit"));
        assert!(permissions.has("/", "Sys.Audit"));
        assert!(!Permissions::default().has("/vms", "VM.Audit"));
        assert!(!Permissions::default().has("/", "VM.Audit"));
        assert!(!permissions.has("nonsense", "VM.Audit"));
    }

    #[test]
    fn what_does_not_go_down_is_not_inherited() {
        let permissions = held(&[
            ("/", &[("VM.Audit", true), ("Sys.Audit", true)]),
            ("/vms", &[("VM.PowerMgmt", false)]),
            ("/nodes", &[("Sys.Audit", true), ("Sys.Modify", false)]),
        ]);
        assert!(permissions.has("/vms", "VM.PowerMgmt"));
        assert!(!permissions.has("/vms/100", "VM.PowerMgmt"));
        assert!(permissions.has("/vms/100", "VM.Audit"), "from above");
        assert!(!permissions.has("/nodes/pve1", "Sys.Modify"));
        assert!(permissions.has("/nodes/pve1", "Sys.Audit"));
    }

    #[test]
    fn what_is_taken_away_is_not_inherited() {
        let permissions = held(&[("/", &[("VM.Audit", true)])]);
        assert!(!permissions.has("/vms", "VM.Audit"));
        assert!(!permissions.has("/vms/100", "VM.Audit"));
        assert!(permissions.has("/mapping/dir", "VM.Audit"));
    }
}
