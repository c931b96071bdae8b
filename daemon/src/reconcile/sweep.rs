//! Removing what no record names.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nexcage_image_store::RootfsId;
use nexcage_sandbox::{SandboxBackend, SandboxId, unpin_netns};

use super::report;
use crate::error::{Chain, OpError};
use crate::pods;
use crate::runtime::Runtime;

/// Removes all that no record names; a backend has `patience` for its part, the rest of which the next round does.
pub(super) async fn everything(runtime: &Arc<Runtime>, patience: Duration) {
    let pods: HashSet<String> = known(runtime);
    let containers: HashSet<String> = runtime
        .inventory
        .containers()
        .iter()
        .flat_map(|c| {
            let record = c.record();
            let volumes: Vec<_> = record
                .image_volumes
                .iter()
                .map(|v| v.rootfs.clone())
                .collect();
            volumes.into_iter().chain([record.id.clone()])
        })
        .collect();
    sweep_containers(runtime, &containers).await;
    let sweeping = Sweeping::default();
    for backend in runtime.backends.all() {
        let swept = async {
            if let Err(error) = backend.tidy().await {
                let backend = backend.name();
                tracing::warn!(backend, error = %Chain(&error), "cannot tidy up");
            }
            sandboxes(runtime, backend, &sweeping).await;
        };
        if tokio::time::timeout(patience, swept).await.is_err() {
            let backend = backend.name();
            tracing::warn!(
                backend,
                "leftovers are not all removed yet; the next round goes on"
            );
        }
    }
    sweep_networks(runtime).await;
    sweep_files(runtime, &pods, &containers).await;
}

/// Pods on record.
fn known(runtime: &Runtime) -> HashSet<String> {
    let pods = runtime.inventory.pods();
    pods.iter().map(|pod| pod.id()).collect()
}

async fn sweep_containers(runtime: &Runtime, known: &HashSet<String>) {
    if let Err(error) = runtime.oci.tidy().await {
        tracing::warn!(%error, "cannot remove what killed cruns left");
    }
    match runtime.oci.list().await {
        Ok(ids) => {
            for id in ids.into_iter().filter(|id| !known.contains(id)) {
                let gone = runtime.oci.delete(&id, true).await;
                report(
                    "remove OCI container",
                    &id,
                    gone.map_err(OpError::step("delete")),
                );
                let gone = runtime.oci.forget(&id).await;
                report(
                    "forget OCI container",
                    &id,
                    gone.map_err(OpError::step("forget")),
                );
            }
        }
        Err(error) => tracing::warn!(error = %Chain(&error), "cannot list OCI containers"),
    }
    let layers = runtime.images.layers();
    match layers.rootfses().await {
        Ok(ids) => {
            for RootfsId(id) in ids.into_iter().filter(|id| !known.contains(&id.0)) {
                let gone = layers.remove_rootfs(&RootfsId(id.clone())).await;
                report(
                    "remove root filesystem",
                    &id,
                    gone.map_err(OpError::step("remove")),
                );
            }
        }
        Err(error) => tracing::warn!(error = %Chain(&error), "cannot list root filesystems"),
    }
}

/// Sandboxes that are being removed: two backends may both know one by its cgroups, and a sandbox has one caller at a time.
#[derive(Debug, Default)]
pub(super) struct Sweeping(Mutex<HashSet<SandboxId>>);

impl Sweeping {
    fn begin(&self, id: &SandboxId) -> bool {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(id.clone())
    }

    fn end(&self, id: &SandboxId) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.remove(id);
    }
}

/// Removes sandboxes of a backend that belong to no pod.
pub(super) async fn sandboxes(
    runtime: &Runtime,
    backend: &Arc<dyn SandboxBackend>,
    sweeping: &Sweeping,
) {
    // What there is, and only then who may have it: a pod is in the inventory before its sandbox is made, so one that is
    // made meanwhile is either not in the first list or in the second.
    let ids = match backend.leftovers().await {
        Ok(ids) => ids,
        Err(error) => {
            let backend = backend.name();
            tracing::warn!(backend, error = %Chain(&error), "cannot look for leftovers");
            return;
        }
    };
    let known = known(runtime);
    for id in ids.into_iter().filter(|id| !known.contains(&id.0)) {
        if !sweeping.begin(&id) {
            continue;
        }
        tracing::info!(sandbox = %id, backend = backend.name(), "removing what belongs to no pod");
        let gone = backend.remove_leftover(&id).await;
        sweeping.end(&id);
        report(
            "remove sandbox",
            &id.0,
            gone.map_err(OpError::step("remove")),
        );
    }
}

/// Detaches pods that are gone or stopped but that a CNI plugin would not let go.
pub(crate) async fn sweep_networks(runtime: &Runtime) {
    // What there is, and only then who may have it: a pod is in the inventory before its network is made, so one that is
    // made meanwhile is either not in the first list or in the second.
    let attached = runtime.cni.cached().await;
    let pinned = names_in(runtime.paths.netns_dir()).await;
    let known: HashSet<String> = runtime
        .inventory
        .pods()
        .iter()
        .map(|pod| pod.record())
        .filter(|record| !record.torn_down)
        .map(|record| record.id.clone())
        .collect();
    match attached {
        Ok(attached) => {
            let all = attached.into_iter().map(|cached| cached.attachment);
            for a in all.filter(|a| !known.contains(&a.container_id)) {
                let gone = runtime.cni.del(&a).await;
                report(
                    "detach pod",
                    &a.container_id,
                    gone.map_err(OpError::step("CNI DEL")),
                );
            }
        }
        Err(error) => tracing::warn!(error = %Chain(&error), "cannot list attached pods"),
    }
    let ours = pinned
        .iter()
        .filter_map(|name| runtime.paths.pod_of_netns(name));
    for id in ours.filter(|id| !known.contains(*id)) {
        let gone = unpin_netns(&runtime.paths.netns(id)).await;
        report(
            "unpin network namespace",
            id,
            gone.map_err(OpError::step("unpin")),
        );
    }
}

async fn sweep_files(runtime: &Runtime, pods: &HashSet<String>, containers: &HashSet<String>) {
    for id in names_in(&runtime.paths.pods()).await {
        if !pods.contains(&id) {
            let gone = pods::remove_files(&runtime.paths.pod(&id)).await;
            report("remove files of pod", &id, gone);
        }
    }
    for id in names_in(&runtime.paths.all_logs()).await {
        if !pods.contains(&id) {
            let gone = pods::remove_logs(&runtime.paths.logs(&id)).await;
            report("remove logs of pod", &id, gone);
        }
    }
    for id in names_in(&runtime.paths.bundles()).await {
        if !containers.contains(&id) {
            let gone = tokio::fs::remove_dir_all(runtime.paths.bundle(&id)).await;
            report("remove bundle", &id, gone.map_err(OpError::step("remove")));
        }
    }
}

/// Names in a directory; none if it is not there.
async fn names_in(dir: &camino::Utf8Path) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(mut entries) = tokio::fs::read_dir(dir).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
    }
    names
}
