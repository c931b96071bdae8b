//! RemoveContainer.

use std::sync::Arc;
use std::time::Duration;

use nexcage_image_store::RootfsId;

use super::Container;
use super::record::{ContainerPhase, ContainerRecord};
use super::stop;
use crate::error::OpError;
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Removes a container, killing it first if it runs. `Ok` when there is none.
pub(crate) async fn remove_container(runtime: &Arc<Runtime>, id: &str) -> Result<(), OpError> {
    let container = match runtime.inventory.container(id) {
        Err(e) if e.is_not_found() => return Ok(()),
        other => other?,
    };
    stop::stop_container(runtime, &container.id(), Duration::ZERO).await?;
    let runtime = Arc::clone(runtime);
    runtime
        .clone()
        .detached(async move {
            let pod = runtime.inventory.pod_by_id(&container.pod_id());
            let _changing = match &pod {
                Some(pod) => Some(pod.lock.lock().await),
                None => None,
            };
            remove_everything(&runtime, &container).await
        })
        .await
}

/// Removes a container in whatever state it is. The caller holds the pod's lock.
pub(crate) async fn remove_everything(
    runtime: &Arc<Runtime>,
    container: &Arc<Container>,
) -> Result<(), OpError> {
    let record = container.record();
    container
        .commit(&runtime.store, Lasting::Process, |r| {
            r.phase = ContainerPhase::Removing;
            true
        })
        .await?;
    nexcage_failpoint::hit("container.removing");
    remove_traces(runtime, &record).await?;
    nexcage_failpoint::hit("container.traces-removed");
    runtime.store.delete_container(&record.id).await?;
    runtime.inventory.remove_container(&record.id);
    runtime.collect_images();
    tracing::info!(container = record.id, "container removed");
    Ok(())
}

/// Everything of a container outside the database. What is not there is fine.
async fn remove_traces(runtime: &Arc<Runtime>, record: &ContainerRecord) -> Result<(), OpError> {
    let doing = |what: &str| format!("cannot remove {what} of container {}", record.id);
    runtime
        .oci
        .delete(&record.id, true)
        .await
        .map_err(OpError::step(doing("the OCI container")))?;
    runtime
        .oci
        .forget(&record.id)
        .await
        .map_err(OpError::step(doing("the exit file")))?;
    let layers = runtime.images.layers();
    let volumes = record.image_volumes.iter().map(|v| v.rootfs.clone());
    for rootfs in std::iter::once(record.id.clone()).chain(volumes) {
        layers
            .remove_rootfs(&RootfsId(rootfs))
            .await
            .map_err(OpError::step(doing("the root filesystem")))?;
    }
    match tokio::fs::remove_dir_all(&record.bundle).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(OpError::failed(doing("the bundle"), e))
        }
        _ => Ok(()),
    }
}
