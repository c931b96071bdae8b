//! Checkpoints of a container's root filesystem, and taking a running container back to one.
//!
//! For kubelet a restored container has never ended: it is `Restoring`, reported as running, from the moment its processes
//! are asked to end until its new first process runs. Were it told of an end, it would make another container in its place.

use std::sync::Arc;
use std::time::Duration;

use nexcage_image_store::{Checkpoint, LayerStoreError, RootfsId};

use super::record::{ContainerPhase, ContainerRecord, Exit, ProcessId};
use super::{Container, create, rootfs, stop, volumes, watch};
use crate::cri::InvalidField;
use crate::error::{Chain, Kind, OpError};
use crate::node::now;
use crate::pidfd;
use crate::pods::PodRecord;
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Exit code of a container that could not be started again, as of one that could not be started.
const RESTORE_ERROR: i32 = 128;

/// A restore that the daemon's own end broke off is finished at its next start, with this much time for the processes.
const GRACE_AT_START: Duration = Duration::from_secs(10);

/// Keeps the state of a container's root filesystem. What runs in it goes on and notices nothing: what it has not yet written
/// is not part of the checkpoint, as after a power cut.
pub(crate) async fn checkpoint(runtime: &Arc<Runtime>, id: &str) -> Result<Checkpoint, OpError> {
    let container = runtime.inventory.container(id)?;
    let runtime = Arc::clone(runtime);
    runtime
        .clone()
        .detached(async move {
            let pod = runtime.inventory.pod(&container.pod_id())?;
            let _changing = pod.lock.lock().await;
            let record = container.record();
            let made = runtime
                .images
                .layers()
                .checkpoint_rootfs(&RootfsId(record.id.clone()))
                .await;
            let made = made.map_err(refused(&record, "cannot make a checkpoint of"))?;
            tracing::info!(
                container = record.id,
                checkpoint = made.name,
                "checkpoint made"
            );
            Ok(made)
        })
        .await
}

/// The checkpoints of a container, oldest first.
pub(crate) async fn checkpoints(runtime: &Runtime, id: &str) -> Result<Vec<Checkpoint>, OpError> {
    let record = runtime.inventory.container(id)?.record();
    let listed = runtime
        .images
        .layers()
        .checkpoints(&RootfsId(record.id.clone()))
        .await;
    listed.map_err(refused(&record, "cannot list the checkpoints of"))
}

/// Removes a checkpoint.
pub(crate) async fn remove_checkpoint(
    runtime: &Arc<Runtime>,
    id: &str,
    name: String,
) -> Result<(), OpError> {
    let container = runtime.inventory.container(id)?;
    let runtime = Arc::clone(runtime);
    runtime
        .clone()
        .detached(async move {
            let pod = runtime.inventory.pod(&container.pod_id())?;
            let _changing = pod.lock.lock().await;
            let record = container.record();
            runtime
                .images
                .layers()
                .remove_checkpoint(&RootfsId(record.id.clone()), &name)
                .await
                .map_err(refused(&record, "cannot remove a checkpoint of"))
        })
        .await
}

/// Stops a running container, takes its root filesystem back to a checkpoint, the latest if `name` is `None`, and starts it
/// again. Its processes get `grace` to end.
pub(crate) async fn restore(
    runtime: &Arc<Runtime>,
    id: &str,
    name: Option<String>,
    grace: Duration,
) -> Result<String, OpError> {
    let container = runtime.inventory.container(id)?;
    let runtime = Arc::clone(runtime);
    runtime
        .clone()
        .detached(async move {
            let pod = runtime.inventory.pod(&container.pod_id())?;
            let _changing = pod.lock.lock().await;
            let name = find(&runtime, &container.record(), name).await?;
            let begun = container
                .commit(&runtime.store, Lasting::Disk, |r| {
                    let running = r.phase.is_running();
                    if running {
                        r.phase = ContainerPhase::Restoring;
                        r.restoring = Some(name.clone());
                    }
                    running
                })
                .await?;
            if !begun {
                return Err(OpError::State(format!(
                    "container {} is not running; a checkpoint is restored into a running container",
                    container.id()
                )));
            }
            nexcage_failpoint::hit("container.restoring");
            carry_out(&runtime, &pod.record(), &container, grace).await?;
            Ok(name)
        })
        .await
}

/// Finishes what [`restore`] began before the daemon ended. The caller holds the pod's lock.
pub(crate) async fn finish_restoring(
    runtime: &Arc<Runtime>,
    pod: &PodRecord,
    container: &Arc<Container>,
) -> Result<(), OpError> {
    carry_out(runtime, pod, container, GRACE_AT_START).await
}

/// The name of the checkpoint that is meant, so that a crash in between cannot change what that is.
async fn find(
    runtime: &Runtime,
    record: &ContainerRecord,
    name: Option<String>,
) -> Result<String, OpError> {
    let all = runtime
        .images
        .layers()
        .checkpoints(&RootfsId(record.id.clone()))
        .await
        .map_err(refused(record, "cannot list the checkpoints of"))?;
    let none = || OpError::NotFound {
        kind: Kind::Checkpoint,
        name: format!(
            "{} of container {}",
            name.as_deref().unwrap_or("latest"),
            record.id
        ),
    };
    let found = match &name {
        Some(name) => all.into_iter().find(|c| c.name == *name),
        None => all.into_iter().next_back(),
    };
    found.map(|c| c.name).ok_or_else(none)
}

/// From `Restoring` to `Running`; or to `Exited`, if it cannot be started again. Every step may be repeated.
async fn carry_out(
    runtime: &Arc<Runtime>,
    pod: &PodRecord,
    container: &Arc<Container>,
    grace: Duration,
) -> Result<(), OpError> {
    let record = container.record();
    if let Err(error) = end(runtime, &record, grace).await {
        go_on(runtime, container).await?;
        return Err(error);
    }
    let restored = async {
        nexcage_failpoint::hit("container.ended-to-restore");
        let rolled_back = roll_back(runtime, &record).await;
        nexcage_failpoint::hit("container.rolled-back");
        // Whether or not it is as it was: it goes on with what it has.
        start_again(runtime, pod, container).await?;
        rolled_back
    };
    let restored = restored.await;
    match &restored {
        Ok(()) => tracing::info!(
            container = record.id,
            checkpoint = record.restoring,
            "container restored"
        ),
        Err(error) => give_up(runtime, container, error).await?,
    }
    restored
}

/// Ends the processes and forgets the OCI container.
async fn end(
    runtime: &Arc<Runtime>,
    record: &ContainerRecord,
    grace: Duration,
) -> Result<(), OpError> {
    if let Some(conmon) = record.conmon {
        stop::signal(record, record.stop_signal)?;
        if !has_ended(conmon, grace).await {
            stop::kill(runtime, record).await?;
            if !has_ended(conmon, stop::KILL_DEADLINE).await {
                return Err(OpError::Deadline(format!(
                    "container {} was killed but has not ended after {} s",
                    record.id,
                    stop::KILL_DEADLINE.as_secs()
                )));
            }
        }
    }
    let doing = || OpError::step(format!("cannot remove the OCI container {}", record.id));
    runtime
        .oci
        .delete(&record.id, true)
        .await
        .map_err(doing())?;
    let forgotten = runtime.oci.forget(&record.id).await;
    forgotten.map_err(OpError::step(format!(
        "cannot forget the OCI container {}",
        record.id
    )))
}

async fn has_ended(conmon: ProcessId, within: Duration) -> bool {
    let gone = pidfd::wait(conmon.pid, conmon.start_time);
    matches!(tokio::time::timeout(within, gone).await, Ok(Ok(())))
}

async fn roll_back(runtime: &Runtime, record: &ContainerRecord) -> Result<(), OpError> {
    let layers = runtime.images.layers();
    let id = RootfsId(record.id.clone());
    let doing = || refused(record, "cannot restore");
    layers.unmount_rootfs(&id).await.map_err(doing())?;
    let name = record.restoring.as_deref();
    layers.restore_rootfs(&id, name).await.map_err(doing())?;
    Ok(())
}

/// Creates and starts the OCI container anew, from the bundle it was made of.
async fn start_again(
    runtime: &Arc<Runtime>,
    pod: &PodRecord,
    container: &Arc<Container>,
) -> Result<(), OpError> {
    let record = container.record();
    rootfs::mount(runtime, pod, &record).await?;
    volumes::mount(runtime, pod, &record).await?;
    let created = create::create(runtime, pod, &record).await?;
    rootfs::release(runtime, &record).await;
    let record = create::adopt(runtime, container, &created, |_| true).await?;
    // The bundle has the limits of the first day.
    if runtime.node.limits() {
        let limits = super::spec::linux_resources(&record.spec.resources, &runtime.container_facts)
            .map_err(create::refused)?;
        let set = runtime.oci.update(&record.id, &limits).await;
        set.map_err(OpError::step(format!(
            "cannot set limits of container {}",
            record.id
        )))?;
    }
    container
        .commit(&runtime.store, Lasting::Disk, |r| {
            r.phase = ContainerPhase::Running;
            r.restoring = None;
            r.started_at = now();
            true
        })
        .await?;
    nexcage_failpoint::hit("container.restored");
    let started = runtime.oci.start(&record.id).await;
    watch::spawn(runtime, container);
    started.map_err(OpError::step(format!(
        "cannot start container {}",
        record.id
    )))
}

/// Its processes could not be ended: it runs as before.
async fn go_on(runtime: &Arc<Runtime>, container: &Arc<Container>) -> Result<(), OpError> {
    container
        .commit(&runtime.store, Lasting::Disk, |r| {
            r.phase = ContainerPhase::Running;
            r.restoring = None;
            true
        })
        .await?;
    // The watcher gave up if they ended after all.
    watch::spawn(runtime, container);
    Ok(())
}

/// It is not coming back; kubelet has to know.
async fn give_up(
    runtime: &Arc<Runtime>,
    container: &Arc<Container>,
    error: &OpError,
) -> Result<(), OpError> {
    let message = format!("a checkpoint was to be restored: {}", Chain(error));
    let given_up = container
        .commit(&runtime.store, Lasting::Disk, |r| {
            let restoring = r.phase == ContainerPhase::Restoring;
            if restoring {
                r.phase = ContainerPhase::Exited;
                r.restoring = None;
                r.exit = Some(Exit {
                    code: RESTORE_ERROR,
                    finished_at: now(),
                    reason: "RestoreError".into(),
                    message,
                });
            }
            restoring
        })
        .await?;
    if given_up {
        tracing::error!(container = container.id(), error = %Chain(error), "container not restored");
    }
    Ok(())
}

/// The store's refusal in the caller's terms.
fn refused<'a>(
    record: &'a ContainerRecord,
    doing: &'a str,
) -> impl FnOnce(LayerStoreError) -> OpError + 'a {
    move |error| match error {
        LayerStoreError::Unsupported { .. } => {
            InvalidField::unsupported("container_id", error.to_string()).into()
        }
        LayerStoreError::NotFound {
            what: "checkpoint",
            name,
        } => OpError::NotFound {
            kind: Kind::Checkpoint,
            name,
        },
        error => OpError::failed(format!("{doing} container {}", record.id), error),
    }
}
