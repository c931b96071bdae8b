//! Runtime handlers: what a Kubernetes RuntimeClass can name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Backend, Config};
use crate::rootfs::RootfsProperties;

/// One runtime handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeHandler {
    /// What makes the shells of its pods. Default: `default_backend`. May not be set for the handler `""`, whose
    /// backend is `default_backend`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Pod annotations that count: those of nexcage, and those that the backend gets to see. A name, or the beginning of names
    /// followed by `*`. A pod with an annotation `nexcage.storage.*` that is not allowed here is refused.
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
            annotations: vec![format!("{}*", RootfsProperties::ANNOTATIONS)],
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
        let listed = match self.runtime_handlers.get(name) {
            Some(listed) => listed.clone(),
            None if name.is_empty() => RuntimeHandler::default(),
            None => return None,
        };
        Some(Handler {
            name: name.to_owned(),
            backend: listed.backend.unwrap_or(self.default_backend()),
            annotations: listed.annotations,
            rootfs: listed.rootfs.or(&self.storage.rootfs),
            privileged_without_host_devices: listed.privileged_without_host_devices,
        })
    }

    /// All handlers, by name, for `Status`.
    pub fn handlers(&self) -> Vec<Handler> {
        let listed = self.runtime_handlers.keys().map(String::as_str);
        std::iter::once("")
            .chain(listed.filter(|name| !name.is_empty()))
            .filter_map(|name| self.handler(name))
            .collect()
    }
}
