//! Making the database and the machine agree, once at every start, before the socket is open.
//!
//! 1. What was being made is unmade, what was being removed is removed: nobody was ever told of the
//!    first, and somebody was promised the second.
//! 2. What runs is taken over: containers that ended meanwhile get their exit codes, sandboxes that are gone
//!    become NOTREADY.
//! 3. What belongs to nobody is removed: only things that carry this daemon's name prefix, or lie in its own
//!    directories, and have an id that is not in the database.

use std::collections::HashSet;
use std::sync::Arc;

use nexcage_image_store::RootfsId;
use nexcage_sandbox::{SandboxState, unpin_netns};

use crate::containers::{self, Container, ContainerPhase};
use crate::error::{Chain, OpError};
use crate::pods::{self, Pod, PodPhase};
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Loads the database and makes it true.
///
/// # Errors
///
/// Only if the database cannot be read. A pod that cannot be cleaned up is logged and stays on record: it must
/// not keep the others from being served.
pub(crate) async fn reconcile(runtime: &Arc<Runtime>) -> Result<(), OpError> {
    let (pods, containers) = runtime.store.load().await?;
    for record in pods {
        runtime.inventory.add_pod(Pod::new(record));
    }
    for record in containers {
        runtime.inventory.add_container(Container::new(record));
    }
    for container in runtime.inventory.containers() {
        settle_container(runtime, &container).await;
    }
    for pod in runtime.inventory.pods() {
        settle_pod(runtime, &pod).await;
    }
    for container in runtime.inventory.containers() {
        if container.record().phase == ContainerPhase::Restoring {
            finish_restoring(runtime, &container).await;
        }
    }
    sweep(runtime).await;
    Ok(())
}

async fn finish_restoring(runtime: &Arc<Runtime>, container: &Arc<Container>) {
    let record = container.record();
    let Some(pod) = runtime.inventory.pod_by_id(&record.pod_id) else {
        return;
    };
    let _changing = pod.lock.lock().await;
    let restored = containers::finish_restoring(runtime, &pod.record(), container).await;
    report("finish restoring container", &record.id, restored);
}

async fn settle_container(runtime: &Arc<Runtime>, container: &Arc<Container>) {
    let record = container.record();
    match record.phase {
        ContainerPhase::Creating | ContainerPhase::Removing => {
            let removed = containers::remove_everything(runtime, container).await;
            report("finish removing container", &record.id, removed);
        }
        ContainerPhase::Created | ContainerPhase::Running => {
            // Ends at once, with the exit on record, if its conmon is gone.
            let lives = record
                .conmon
                .is_some_and(|c| crate::pidfd::is_alive(c.pid, c.start_time));
            if lives || !containers::find_out(runtime, container).await {
                containers::watch(runtime, container);
            }
        }
        // After the pods: it is started in one.
        ContainerPhase::Restoring => {}
        ContainerPhase::Exited => {}
    }
}

async fn settle_pod(runtime: &Arc<Runtime>, pod: &Arc<Pod>) {
    let record = pod.record();
    let _changing = pod.lock.lock().await;
    match record.phase {
        PodPhase::Creating | PodPhase::Removing => {
            let removed = pods::remove_everything(runtime, pod).await;
            report("finish removing pod sandbox", &record.id, removed);
        }
        PodPhase::Ready => settle_ready(runtime, pod).await,
        // Stopping was begun: kubelet asks again, but a port or an address must not stay taken until then.
        PodPhase::NotReady if !record.torn_down => {
            report(
                "finish stopping pod sandbox",
                &record.id,
                pods::tear_down(runtime, pod).await,
            );
        }
        PodPhase::NotReady => {}
    }
}

async fn settle_ready(runtime: &Arc<Runtime>, pod: &Arc<Pod>) {
    let record = pod.record();
    let state = match runtime.backends.get(&record.backend) {
        Ok(backend) => backend
            .inspect(&record.sandbox)
            .await
            .map_err(OpError::step("inspect")),
        Err(e) => Err(e),
    };
    match state {
        Ok(SandboxState::Running(_)) => {
            pods::watch(runtime, pod);
            let finished = pods::finish_update(runtime, pod).await;
            report(
                "finish changing the limits of pod sandbox",
                &record.id,
                finished,
            );
        }
        Ok(SandboxState::Stopped) => {
            tracing::info!(
                pod = record.id,
                "the sandbox ended while the daemon was away"
            );
            let ended = pod
                .commit(&runtime.store, Lasting::Disk, |r| {
                    r.phase = PodPhase::NotReady;
                })
                .await;
            report(
                "record the end of pod sandbox",
                &record.id,
                ended.map_err(Into::into),
            );
            report(
                "tear down pod sandbox",
                &record.id,
                pods::tear_down(runtime, pod).await,
            );
        }
        Err(error) => {
            tracing::error!(pod = record.id, error = %Chain(&error), "cannot inspect the sandbox");
        }
    }
}

fn report(doing: &str, id: &str, result: Result<(), OpError>) {
    if let Err(error) = result {
        tracing::error!(id, error = %Chain(&error), "cannot {doing}");
    }
}

/// Removes what no record names.
async fn sweep(runtime: &Arc<Runtime>) {
    let pods: HashSet<String> = runtime
        .inventory
        .pods()
        .iter()
        .map(|p| p.record().id.clone())
        .collect();
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
    sweep_sandboxes(runtime, &pods).await;
    sweep_networks(runtime).await;
    sweep_files(runtime, &pods, &containers).await;
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

async fn sweep_sandboxes(runtime: &Runtime, known: &HashSet<String>) {
    for backend in runtime.backends.all() {
        match backend.leftovers().await {
            Ok(ids) => {
                for id in ids.into_iter().filter(|id| !known.contains(&id.0)) {
                    let gone = backend.remove_leftover(&id).await;
                    report(
                        "remove sandbox",
                        &id.0,
                        gone.map_err(OpError::step("remove")),
                    );
                }
            }
            Err(error) => tracing::warn!(
                backend = backend.name(),
                error = %Chain(&error),
                "cannot look for leftovers"
            ),
        }
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
