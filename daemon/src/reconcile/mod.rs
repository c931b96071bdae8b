//! Making the database and the machine agree: once at every start, before the socket is open, and from time to time afterwards.
//!
//! 1. What was being made is unmade, what was being removed is removed: nobody was ever told of the
//!    first, and somebody was promised the second.
//! 2. What runs is taken over: containers that ended meanwhile get their exit codes, sandboxes that are gone, or were taken
//!    away, become NOTREADY and are torn down. What an administrator has changed in one is told, and neither undone nor believed.
//! 3. What belongs to nobody is removed: only things that carry this daemon's name prefix, or lie in its own
//!    directories, and have an id that is not in the database.
//!
//! It goes by what there is, never by what has happened: a step that fails is taken again in the next round ([`periodic`]).
//! `pods` is one pod, `sweep` what belongs to none.

mod periodic;
mod pods;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::containers::{self, Container, ContainerPhase};
use crate::error::{Chain, OpError};
use crate::pods::Pod;
use crate::runtime::Runtime;

pub(crate) use periodic::spawn as spawn_periodic;
use pods::When;
pub(crate) use sweep::sweep_networks;

/// How long a start waits for pods to be put right. What takes longer, as with a cluster file system that does not answer,
/// goes on while others are served.
const START_PATIENCE: Duration = Duration::from_secs(30);

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
    settle_pods(runtime).await;
    sweep::everything(runtime, START_PATIENCE).await;
    Ok(())
}

/// All pods at the same time, each with the containers that are on their way back to a checkpoint in it.
async fn settle_pods(runtime: &Arc<Runtime>) {
    let settling = TaskTracker::new();
    for pod in runtime.inventory.pods() {
        let task_runtime = Arc::clone(runtime);
        let settled = settling.track_future(async move {
            let _changing = pod.lock.lock().await;
            pods::settle(&task_runtime, &pod, When::Start).await;
            for container in task_runtime.inventory.containers_of(&pod.id()) {
                if container.record().phase == ContainerPhase::Restoring {
                    finish_restoring(&task_runtime, &pod, &container).await;
                }
            }
        });
        runtime.tasks.spawn(settled);
    }
    settling.close();
    if tokio::time::timeout(START_PATIENCE, settling.wait())
        .await
        .is_err()
    {
        let pods = settling.len();
        tracing::warn!(
            pods,
            "not all pods are put right yet; this goes on beside the others"
        );
    }
}

async fn finish_restoring(runtime: &Arc<Runtime>, pod: &Pod, container: &Arc<Container>) {
    let restored = containers::finish_restoring(runtime, &pod.record(), container).await;
    report("finish restoring container", &container.id(), restored);
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
        // With its pod: it is started there.
        ContainerPhase::Restoring => {}
        ContainerPhase::Exited => {}
    }
}

fn report(doing: &str, id: &str, result: Result<(), OpError>) {
    if let Err(error) = result {
        tracing::error!(id, error = %Chain(&error), "cannot {doing}");
    }
}
