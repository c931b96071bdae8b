//! From the crate's types to ours. The crate takes numbers that do not fit for others, so whatever is out of range is refused here.

use std::collections::BTreeMap;

use proxmox_api::access::permissions as access;
use proxmox_api::cluster::status as cluster_status;
use proxmox_api::nodes::node::lxc;
use proxmox_api::nodes::node::lxc::vmid::status::current;
use proxmox_api::types::bounded_integer::BoundedInteger as _;
use serde_json::Value;

use super::answer::AnswerError;
use super::verbs::{ClusterStatus, CtStatus, CtSummary, Permissions};

/// A node without a cluster has no entry of the type `cluster`, and nobody to lose quorum to.
pub(super) fn cluster(items: Vec<cluster_status::GetOutputItems>) -> ClusterStatus {
    let mut status = ClusterStatus {
        name: None,
        quorate: true,
        nodes: BTreeMap::new(),
    };
    for item in items {
        match item.ty {
            cluster_status::Type::Cluster => {
                status.name = Some(item.name);
                status.quorate = item.quorate.unwrap_or(false);
            }
            cluster_status::Type::Node => {
                let online = item.online.unwrap_or(false);
                status.nodes.insert(item.name, online);
            }
        }
    }
    status
}

/// Paths to privileges to whether they go further down: the crate leaves them as they come.
pub(super) fn permissions(held: access::GetOutput) -> Result<Permissions, AnswerError> {
    let mut permissions = Permissions::default();
    for (path, privileges) in held.additional_properties {
        let Value::Object(privileges) = privileges else {
            return Err(wrong("a path's privileges", &privileges));
        };
        let mut inherited = BTreeMap::new();
        for (name, value) in privileges {
            let down = match &value {
                Value::Number(number) => number.as_u64().map(|n| n != 0),
                Value::String(text) => Some(text != "0" && !text.is_empty()),
                Value::Bool(yes) => Some(*yes),
                _ => None,
            };
            let down = down.ok_or_else(|| wrong("a privilege's mark", &value))?;
            inherited.insert(name, down);
        }
        permissions.0.insert(path, inherited);
    }
    Ok(permissions)
}

pub(super) fn summary(item: lxc::GetOutputItems) -> Result<CtSummary, AnswerError> {
    let vmid = item.vmid.get();
    Ok(CtSummary {
        vmid: u32::try_from(vmid).map_err(|_| wrong("vmid", &vmid))?,
        name: item.name.unwrap_or_default(),
        running: item.status == lxc::Status::Running,
        tags: tags(item.tags.as_deref().unwrap_or_default()),
    })
}

pub(super) fn status(item: current::GetOutput) -> Result<CtStatus, AnswerError> {
    let cpus = number("cpus", item.cpus)?;
    // Proxmox tells which part of them is in use.
    let cpu = number("cpu", item.cpu)? * cpus;
    Ok(CtStatus {
        running: item.status == current::Status::Running,
        name: item.name.unwrap_or_default(),
        memory_bytes: count("mem", item.mem)?,
        max_memory_bytes: count("maxmem", item.maxmem)?,
        cpu: number("cpu", Some(cpu))?,
        cpus,
        uptime_seconds: count("uptime", item.uptime)?,
        lock: item.lock,
    })
}

/// Proxmox splits at each of these.
fn tags(text: &str) -> Vec<String> {
    let parts = text.split([';', ',', ' ', '\t', '\0']);
    let parts = parts.filter(|tag| !tag.is_empty());
    parts.map(str::to_owned).collect()
}

fn count(field: &'static str, value: Option<i64>) -> Result<u64, AnswerError> {
    let value = value.unwrap_or(0);
    u64::try_from(value).map_err(|_| wrong(field, &value))
}

fn number(field: &'static str, value: Option<f64>) -> Result<f64, AnswerError> {
    let value = value.unwrap_or(0.0);
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(wrong(field, &value))
}

fn wrong(field: &'static str, value: &impl ToString) -> AnswerError {
    AnswerError::Value {
        field,
        value: super::answer::excerpt(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;

    fn parsed<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_cluster_has_a_name_and_quorum() {
        let status = cluster(parsed(json!([
            {"type": "cluster", "id": "cluster", "name": "house", "nodes": 3, "quorate": 0, "version": 5},
            {"type": "node", "id": "node/pve1", "name": "pve1", "nodeid": 1, "online": 1, "local": 1, "ip": "10.0.0.1", "level": ""},
            {"type": "node", "id": "node/pve2", "name": "pve2", "nodeid": 2, "online": 0, "local": 0, "ip": "10.0.0.2"},
        ])));
        assert_eq!(status.name.as_deref(), Some("house"));
        assert!(!status.quorate);
        let nodes = [("pve1".to_owned(), true), ("pve2".to_owned(), false)];
        assert_eq!(status.nodes, BTreeMap::from(nodes));
    }

    #[test]
    fn a_node_of_its_own_is_quorate() {
        let status = cluster(parsed(json!([
            {"type": "node", "id": "node/pve1", "name": "pve1", "nodeid": 0, "online": 1, "local": 1, "ip": "10.0.0.1", "level": ""},
        ])));
        assert_eq!((status.name, status.quorate), (None, true));
    }

    #[test]
    fn a_container_is_read_as_proxmox_writes_it() {
        // Perl writes some numbers as text.
        let running = json!({
            "vmid": 100, "status": "running", "name": "pod-1", "cpus": "0.5", "cpu": 0.25, "tags": "k8s;nexcage",
            "mem": 104857600, "maxmem": 134217728, "swap": 0, "maxswap": 0, "disk": 1048576, "maxdisk": "67108864", "uptime": "61",
            "netin": 0, "netout": 0, "diskread": 0, "diskwrite": 0, "pid": 4242, "type": "lxc", "ha": {"managed": 0},
            "pressurecpusome": "0.00", "pressurecpufull": 0, "pressureiosome": null, "lock": "backup",
        });
        let read = status(parsed(running.clone())).unwrap();
        assert_eq!(
            read,
            CtStatus {
                running: true,
                name: "pod-1".into(),
                memory_bytes: 104_857_600,
                max_memory_bytes: 134_217_728,
                cpu: 0.125,
                cpus: 0.5,
                uptime_seconds: 61,
                lock: Some("backup".into()),
            }
        );
        let listed = summary(parsed(running)).unwrap();
        assert_eq!((listed.vmid, listed.running), (100, true));
        assert_eq!(listed.tags, ["k8s", "nexcage"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (field, value) in [
            ("mem", json!(-1)),
            // The crate makes a negative number of it.
            ("maxmem", json!(u64::MAX)),
            ("cpu", json!("nan")),
            ("cpus", json!("inf")),
            ("cpus", json!(-2.5)),
            ("uptime", json!("-5")),
        ] {
            let mut container = json!({"vmid": 100, "status": "running", "ha": {}});
            container[field] = value;
            let error = status(parsed(container)).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }

    #[test]
    fn privileges_are_read_with_their_reach() {
        let held = permissions(parsed(json!({
            "/vms": {"VM.Audit": 1, "VM.PowerMgmt": 0},
            "/nodes/pve1": {"Sys.Audit": "1"},
        })))
        .unwrap();
        assert!(held.has("/vms/100", "VM.Audit"));
        assert!(!held.has("/vms/100", "VM.PowerMgmt"));
        assert!(held.has("/nodes/pve1", "Sys.Audit"));
        assert!(permissions(parsed(json!({"/vms": 1}))).is_err());
        assert!(permissions(parsed(json!({"/vms": {"VM.Audit": []}}))).is_err());
    }
}
