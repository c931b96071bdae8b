//! StopPodSandbox and RemovePodSandbox: always succeed in the end.

use std::sync::Arc;

use super::files::PodFiles;
use super::record::{PodPhase, PodRecord};
use super::{Pod, network};
use crate::containers;
use crate::error::OpError;
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Ends a pod: its containers without further grace, its network, its sandbox. `Ok` when there is no such pod.
pub(crate) async fn stop_pod(runtime: &Arc<Runtime>, id: &str) -> Result<(), OpError> {
    let pod = match runtime.inventory.pod(id) {
        Err(e) if e.is_not_found() => return Ok(()),
        other => other?,
    };
    let runtime = Arc::clone(runtime);
    runtime
        .clone()
        .detached(async move {
            let _changing = pod.lock.lock().await;
            tear_down(&runtime, &pod).await
        })
        .await
}

/// Stops a pod and removes it with its containers. `Ok` when there is no such pod.
pub(crate) async fn remove_pod(runtime: &Arc<Runtime>, id: &str) -> Result<(), OpError> {
    let pod = match runtime.inventory.pod(id) {
        Err(e) if e.is_not_found() => return Ok(()),
        other => other?,
    };
    let runtime = Arc::clone(runtime);
    runtime
        .clone()
        .detached(async move {
            let _changing = pod.lock.lock().await;
            remove_everything(&runtime, &pod).await
        })
        .await
}

/// Ends everything that runs for the pod. The caller holds the pod's lock.
pub(crate) async fn tear_down(runtime: &Arc<Runtime>, pod: &Arc<Pod>) -> Result<(), OpError> {
    let record = pod.record();
    if record.torn_down {
        return Ok(());
    }
    if record.phase == PodPhase::Ready {
        pod.commit(&runtime.store, Lasting::Process, |r| {
            r.phase = PodPhase::NotReady;
        })
        .await?;
        nexcage_failpoint::hit("pod.stopping");
    }
    containers::kill_all(runtime, &record.id).await?;
    network::restore_pin(&record).await;
    let files = PodFiles::new(&record.sandbox.run_dir);
    // At once: the pin keeps the network namespace while the sandbox ends, and the containers that used the memory are gone.
    let (detached, stopped, unmounted) = tokio::join!(
        network::tear_down(runtime, &record),
        stop_sandbox(runtime, &record),
        blocking("unmounting the pod's /dev/shm", move || files.unmount_shm())
    );
    detached.and(stopped).and(unmounted)?;
    // After a power cut it is torn down again.
    pod.commit(&runtime.store, Lasting::Process, |r| r.torn_down = true)
        .await?;
    tracing::info!(pod = record.id, "pod sandbox stopped");
    Ok(())
}

async fn stop_sandbox(runtime: &Runtime, record: &PodRecord) -> Result<(), OpError> {
    let backend = runtime.backends.get(&record.backend)?;
    let stopped = backend.stop(&record.sandbox).await;
    stopped.map_err(|e| runtime.backends.refusal("cannot stop the pod sandbox", e))?;
    nexcage_failpoint::hit("pod.sandbox-stopped");
    Ok(())
}

/// Removes a pod in whatever state it is. The caller holds the pod's lock.
pub(crate) async fn remove_everything(
    runtime: &Arc<Runtime>,
    pod: &Arc<Pod>,
) -> Result<(), OpError> {
    tear_down(runtime, pod).await?;
    let record = pod.record();
    pod.commit(&runtime.store, Lasting::Process, |r| {
        r.phase = PodPhase::Removing;
    })
    .await?;
    nexcage_failpoint::hit("pod.removing");
    for container in runtime.inventory.containers_of(&record.id) {
        containers::remove_everything(runtime, &container).await?;
    }
    remove_traces(runtime, &record).await?;
    nexcage_failpoint::hit("pod.traces-removed");
    runtime.store.delete_pod(&record.id).await?;
    runtime.inventory.remove_pod(&record.id);
    tracing::info!(pod = record.id, "pod sandbox removed");
    Ok(())
}

async fn remove_traces(runtime: &Arc<Runtime>, record: &PodRecord) -> Result<(), OpError> {
    let backend = runtime.backends.get(&record.backend)?;
    let removed = backend.remove(&record.sandbox).await;
    removed.map_err(|e| runtime.backends.refusal("cannot remove the pod sandbox", e))?;
    remove_files(&record.sandbox.run_dir).await?;
    remove_logs(&runtime.paths.logs(&record.id)).await
}

/// Removes the logs of a pod that named no directory for them; kubelet's are kubelet's.
pub(crate) async fn remove_logs(dir: &camino::Utf8Path) -> Result<(), OpError> {
    match tokio::fs::remove_dir_all(dir).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(OpError::failed(
            format!("cannot remove the logs in {dir}"),
            e,
        )),
        _ => Ok(()),
    }
}

/// Removes a pod's run directory and what is mounted in it.
pub(crate) async fn remove_files(run_dir: &camino::Utf8Path) -> Result<(), OpError> {
    let files = PodFiles::new(run_dir);
    blocking("removing the pod's files", move || files.remove()).await
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, OpError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(OpError::step(format!("{doing} was interrupted")))?
        .map_err(OpError::step(format!("{doing} failed")))
}
