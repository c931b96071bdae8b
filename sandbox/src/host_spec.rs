//! The OCI configuration of a sandbox of the `host` backend.

use camino::Utf8Path;
use serde_json::{Value, json};

use crate::backend::{IdMapping, NamespaceMode, SandboxSpec};
use crate::rootfs::INIT;

/// `config.json` for a process that holds the pod's namespaces and can do nothing else. Pure.
///
/// OCI runtime specification 1.0, "Configuration" and "Linux Container Configuration".
pub(crate) fn oci_spec(spec: &SandboxSpec, rootfs: &Utf8Path) -> Value {
    let mut linux = json!({
        "namespaces": namespaces(spec),
        "rootfsPropagation": "private",
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/sysrq-trigger"],
        "readonlyPaths": ["/proc/sys"],
    });
    if let Some(users) = &spec.user_namespace {
        linux["uidMappings"] = mappings(&users.uids);
        linux["gidMappings"] = mappings(&users.gids);
    }
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": rootfs, "readonly": true },
        "hostname": spec.hostname,
        "process": {
            "args": [INIT, "-P"],
            "cwd": "/",
            "env": ["PATH=/"],
            "user": { "uid": 0, "gid": 0 },
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [],
            },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            // crun makes device nodes here; without the mount they would end up in the tree that all sandboxes share.
            {
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "noexec", "mode=755", "size=64k"],
            },
        ],
        "linux": linux,
    })
}

/// A new namespace of each kind that the pod has of its own. The host name is always the sandbox's: app containers of
/// a hostNetwork pod that want the node's simply do not join it.
fn namespaces(spec: &SandboxSpec) -> Value {
    let mut kinds = vec!["mount", "uts"];
    for (kind, mode) in [("ipc", spec.ipc), ("pid", spec.pid)] {
        if mode == NamespaceMode::Pod {
            kinds.push(kind);
        }
    }
    if spec.user_namespace.is_some() {
        kinds.push("user");
    }
    let new = kinds.iter().map(|kind| json!({ "type": kind }));
    let network = match (spec.network, &spec.netns) {
        (NamespaceMode::Node, _) => None,
        (NamespaceMode::Pod, Some(path)) => Some(json!({ "type": "network", "path": path })),
        (NamespaceMode::Pod, None) => Some(json!({ "type": "network" })),
    };
    new.chain(network).collect()
}

fn mappings(mappings: &[IdMapping]) -> Value {
    mappings
        .iter()
        .map(|m| json!({ "containerID": m.container_id, "hostID": m.host_id, "size": m.length }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::UserNamespace;
    use crate::fixture::spec;

    fn built(spec: &SandboxSpec) -> Value {
        let value = oci_spec(spec, "/usr/lib/nexcage/sandbox".into());
        // It is what the specification's types say.
        serde_json::from_value::<oci_spec::runtime::Spec>(value.clone()).unwrap();
        value
    }

    #[test]
    fn a_pod_of_its_own() {
        insta::assert_json_snapshot!(built(&spec()));
    }

    #[test]
    fn a_pod_in_the_hosts_namespaces() {
        let spec = SandboxSpec {
            network: NamespaceMode::Node,
            netns: None,
            ipc: NamespaceMode::Node,
            pid: NamespaceMode::Node,
            ..spec()
        };
        insta::assert_json_snapshot!(built(&spec));
    }

    #[test]
    fn a_pod_with_a_user_namespace() {
        let range = IdMapping {
            container_id: 0,
            host_id: 200_000,
            length: 65_536,
        };
        let spec = SandboxSpec {
            netns: None,
            user_namespace: Some(UserNamespace {
                uids: vec![range],
                gids: vec![range],
            }),
            ..spec()
        };
        insta::assert_json_snapshot!(built(&spec));
    }
}
