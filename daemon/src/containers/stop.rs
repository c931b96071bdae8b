//! StopContainer, and the end of all containers of a pod.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::Container;
use super::config::PidMode;
use super::record::{ContainerPhase, ContainerRecord};
use crate::error::OpError;
use crate::pidfd;
use crate::runtime::Runtime;

const SIGKILL: i32 = 9;

/// Time between SIGKILL and the recorded end: the kernel tears the process down, conmon drains its
/// output and writes the exit file. A process stuck in the kernel takes longer, and then the call fails
/// and is repeated by kubelet.
pub(super) const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Time that a restore under way has before a container can be stopped.
const RESTORE_DEADLINE: Duration = Duration::from_secs(120);

/// Asks a container to end, waits `grace`, then kills it. `Ok` when there is none or it has ended.
///
/// No lock is held meanwhile: a container that takes its time holds up nobody else.
pub(crate) async fn stop_container(
    runtime: &Arc<Runtime>,
    id: &str,
    grace: Duration,
) -> Result<(), OpError> {
    let container = match runtime.inventory.container(id) {
        Err(e) if e.is_not_found() => return Ok(()),
        other => other?,
    };
    let runtime = Arc::clone(runtime);
    runtime
        .clone()
        .detached(async move { end(&runtime, &container, grace).await })
        .await
}

/// Kills all containers of a pod at once. The caller holds the pod's lock.
pub(crate) async fn kill_all(runtime: &Arc<Runtime>, pod_id: &str) -> Result<(), OpError> {
    let containers = runtime.inventory.containers_of(pod_id);
    try_join_all(containers.iter().map(|c| end(runtime, c, Duration::ZERO))).await?;
    Ok(())
}

async fn end(
    runtime: &Arc<Runtime>,
    container: &Arc<Container>,
    grace: Duration,
) -> Result<(), OpError> {
    restored(container).await?;
    let record = container.record();
    if !record.phase.may_live() {
        return Ok(());
    }
    // A container that was never started has nobody inside to understand a signal.
    let ask = record.phase.is_running() && !grace.is_zero();
    if ask {
        signal(&record, record.stop_signal)?;
        if ended(container, grace).await {
            return Ok(());
        }
        tracing::info!(
            container = record.id,
            ?grace,
            "did not end in time; killing it"
        );
    }
    kill(runtime, &record).await?;
    if ended(container, KILL_DEADLINE).await {
        return Ok(());
    }
    Err(OpError::Deadline(format!(
        "container {} was killed but has not ended after {} s",
        record.id,
        KILL_DEADLINE.as_secs()
    )))
}

/// Waits until the container is not on its way back to a checkpoint: it has ended then, or runs and can be ended.
async fn restored(container: &Container) -> Result<(), OpError> {
    let mut phases = container.phases();
    let settled = phases.wait_for(|phase| *phase != ContainerPhase::Restoring);
    match tokio::time::timeout(RESTORE_DEADLINE, settled).await {
        Ok(_) => Ok(()),
        Err(_) => Err(OpError::Deadline(format!(
            "container {} is being restored, and that has not ended after {} s",
            container.id(),
            RESTORE_DEADLINE.as_secs()
        ))),
    }
}

pub(super) fn signal(record: &ContainerRecord, number: i32) -> Result<(), OpError> {
    let Some(init) = record.init else {
        return Ok(());
    };
    pidfd::signal(init.pid, init.start_time, number).map_err(OpError::step(format!(
        "cannot send signal {number} to container {}",
        record.id
    )))
}

/// SIGKILL to the first process, which takes its PID namespace along; where the pod shares one, to all
/// processes of the container.
pub(super) async fn kill(runtime: &Arc<Runtime>, record: &ContainerRecord) -> Result<(), OpError> {
    if record.spec.security.namespaces.pid != PidMode::Container {
        runtime
            .oci
            .kill(&record.id, SIGKILL, true)
            .await
            .map_err(OpError::step(format!(
                "cannot kill container {}",
                record.id
            )))?;
    }
    signal(record, SIGKILL)
}

async fn ended(container: &Container, within: Duration) -> bool {
    let mut phases = container.phases();
    let gone = phases
        .wait_for(|phase| !matches!(phase, ContainerPhase::Created | ContainerPhase::Running));
    tokio::time::timeout(within, gone).await.is_ok()
}
