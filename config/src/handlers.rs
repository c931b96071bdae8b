//! Runtime handlers: what a Kubernetes RuntimeClass can name.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Backend, Config};
use crate::rootfs::RootfsProperties;

/// Handlers that are there without being listed. Their backend is `proxmox`, unless they are listed with another.
pub const PROXMOX_HANDLERS: [&str; 3] = ["nexcage", "nexcage-lxc", "proxmox-lxc"];

/// Annotations by which a pod that names no runtime handler may choose a backend.
pub const BACKEND_ANNOTATIONS: [&str; 3] = [
    "nexcage.runtime.backend",
    "io.kubernetes.cri.runtime",
    "runtime.cozystack.io/type",
];

/// One runtime handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeHandler {
    /// What makes the shells of its pods. Default: `proxmox` for the handlers `nexcage`, `nexcage-lxc` and `proxmox-lxc`,
    /// else `default_backend`. May not be set for the handler `""`, whose backend is `default_backend`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Pod annotations that count: those of nexcage, and those that the backend gets to see. A name, or the beginning of names
    /// followed by `*`. A pod with an annotation that nexcage would heed and that is not allowed here is refused: those
    /// that begin with `nexcage.storage.`, and where the pod names no handler, those that choose a backend.
    pub annotations: Vec<String>,
    /// What the root filesystems of its containers shall be. Default: `storage.rootfs`.
    pub rootfs: RootfsProperties,
    /// Privileged containers get the devices their pod asks for and no others, instead of all of the host's.
    pub privileged_without_host_devices: bool,
}

impl Default for RuntimeHandler {
    fn default() -> Self {
        Self {
            backend: None,
            annotations: std::iter::once(format!("{}*", RootfsProperties::ANNOTATIONS))
                .chain(BACKEND_ANNOTATIONS.map(str::to_owned))
                .collect(),
            rootfs: RootfsProperties::default(),
            privileged_without_host_devices: false,
        }
    }
}

/// A runtime handler, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// As pods name it; empty for those that name none.
    pub name: String,
    /// What makes the shells of its pods.
    pub backend: Backend,
    /// Pod annotations that count.
    pub annotations: Vec<String>,
    /// What the root filesystems of its containers shall be.
    pub rootfs: RootfsProperties,
    /// Privileged containers get no devices of the host unasked.
    pub privileged_without_host_devices: bool,
}

impl Handler {
    /// Whether the annotation `key` counts.
    pub fn allows_annotation(&self, key: &str) -> bool {
        self.annotations
            .iter()
            .any(|allowed| match allowed.strip_suffix('*') {
                Some(beginning) => key.starts_with(beginning),
                None => key == allowed,
            })
    }
}

impl Config {
    /// The handler a pod names; `None` if there is no such handler.
    pub fn handler(&self, name: &str) -> Option<Handler> {
        let usual = PROXMOX_HANDLERS.contains(&name).then_some(Backend::Proxmox);
        let listed = match self.runtime_handlers.get(name) {
            Some(listed) => listed.clone(),
            None if name.is_empty() || usual.is_some() => RuntimeHandler::default(),
            None => return None,
        };
        Some(Handler {
            name: name.to_owned(),
            backend: listed.backend.or(usual).unwrap_or(self.default_backend()),
            annotations: listed.annotations,
            rootfs: listed.rootfs.or(&self.storage.rootfs),
            privileged_without_host_devices: listed.privileged_without_host_devices,
        })
    }

    /// All handlers, by name; not all of their backends need to be on this machine.
    pub fn handlers(&self) -> Vec<Handler> {
        let listed = self.runtime_handlers.keys().map(String::as_str);
        let names: BTreeSet<&str> = listed.chain([""]).chain(PROXMOX_HANDLERS).collect();
        names
            .into_iter()
            .filter_map(|name| self.handler(name))
            .collect()
    }
}
