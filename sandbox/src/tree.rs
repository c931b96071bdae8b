//! Making, limiting, killing and removing the cgroups of pods.

use std::sync::Arc;

use camino::Utf8Path;
use nexcage_systemd::ScopeManager;

use crate::backend::{PodResources, SandboxId, SandboxSpec};
use crate::cgroup::{CgroupHost, PodCgroups};

/// The cgroup tree of this machine, as far as pods are concerned.
#[derive(Clone, Debug)]
pub struct CgroupTree {
    host: CgroupHost,
    prefix: String,
    scopes: Option<Arc<dyn ScopeManager>>,
}

impl CgroupTree {
    /// Pods' cgroups are named `<prefix><id>`. With `scopes` they are systemd's scopes, otherwise plain directories.
    pub fn new(host: CgroupHost, prefix: &str, scopes: Option<Arc<dyn ScopeManager>>) -> Self {
        Self {
            host,
            prefix: prefix.to_owned(),
            scopes,
        }
    }
}
