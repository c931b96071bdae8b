//! Pod networks.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::AbsolutePath;

/// Pod networks by CNI plugins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Where network configurations are; the first file by name (`.conf`, `.conflist`, `.json`) is the pod network.
    /// It is looked at for each pod, so a network plugin may put its file there at any time.
    pub conf_dir: AbsolutePath,
    /// Where plugins are; the first directory that has a plugin wins.
    #[schemars(length(min = 1))]
    pub plugin_dirs: Vec<AbsolutePath>,
    /// Where results of plugins are kept, needed to take a pod's network down again. Default: `cni` below `storage.root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<AbsolutePath>,
    /// Seconds one call of a plugin may take before it is killed. kubelet waits 240 seconds for the whole pod.
    #[schemars(range(min = 1, max = 3600))]
    pub deadline_seconds: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            conf_dir: AbsolutePath::constant("/etc/cni/net.d"),
            plugin_dirs: vec![
                AbsolutePath::constant("/opt/cni/bin"),
                AbsolutePath::constant("/usr/lib/cni"),
            ],
            cache_dir: None,
            deadline_seconds: 90,
        }
    }
}

impl Network {
    /// Time one call of a plugin may take.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }
}
