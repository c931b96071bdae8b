//! What the crate's tests have in common.

use std::collections::BTreeMap;

use nexcage_sandbox::{NamespaceMode, PodResources, SandboxId, SandboxSpec};

/// An ordinary pod.
pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec {
        id: SandboxId("0123456789abcdef".repeat(4)),
        name: "web".into(),
        namespace: "default".into(),
        uid: "6f6ccf3e-4a1e-4b7c-9a1f-1d8b1c1f1a11".into(),
        hostname: "web-0".into(),
        cgroup_parent: String::new(),
        network: NamespaceMode::Pod,
        netns: Some("/run/netns/nexcage-web".into()),
        ipc: NamespaceMode::Pod,
        pid: NamespaceMode::Pod,
        user_namespace: None,
        privileged: false,
        sysctls: BTreeMap::new(),
        resources: PodResources::default(),
        annotations: BTreeMap::new(),
        run_dir: "/run/nexcage/sandboxes/web".into(),
    }
}
