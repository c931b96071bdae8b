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

    /// `POST /nodes/<node>/lxc/<vmid>/status/start`; returns when the task has ended well.
    async fn start(&self, vmid: u32) -> Result<(), PveError>;

    /// `POST /nodes/<node>/lxc/<vmid>/status/stop`; returns when the task has ended well.
    async fn stop(&self, vmid: u32) -> Result<(), PveError>;

    /// `POST /nodes/<node>/lxc/<vmid>/status/shutdown`; returns when the task has ended well.
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

/// Privileges by path, `/vms` to `VM.Audit` and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions(pub BTreeMap<String, Vec<String>>);

impl Permissions {
    /// Whether `privilege` is held on `path` or, by inheritance, above it.
    pub fn has(&self, path: &str, privilege: &str) -> bool {
        let mut path = path;
        loop {
            let held = self.0.get(if path.is_empty() { "/" } else { path });
            if let Some(held) = held {
                return held.iter().any(|name| name == privilege);
            }
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => return false,
            }
        }
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

    #[test]
    fn privileges_are_inherited_until_a_path_of_its_own() {
        let permissions = Permissions(BTreeMap::from([
            ("/".to_owned(), vec!["Sys.Audit".to_owned()]),
            ("/vms".to_owned(), vec!["VM.Audit".to_owned()]),
        ]));
        assert!(permissions.has("/vms/900000", "VM.Audit"));
        assert!(!permissions.has("/vms/900000", "Sys.Audit"));
        assert!(permissions.has("/nodes/pve1", "Sys.Audit"));
        assert!(!Permissions::default().has("/vms", "VM.Audit"));
    }
}
