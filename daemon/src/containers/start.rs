//! StartContainer.

use std::sync::Arc;

use nexcage_oci_runtime::OciError;

use super::record::{ContainerPhase, Exit};
use crate::ended;
use crate::error::{Chain, OpError};
use crate::node::now;
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Exit code of a container whose process could not be started, as containerd reports it.
const START_ERROR: i32 = 128;

/// Starts a created container.
pub(crate) async fn start_container(runtime: &Arc<Runtime>, id: &str) -> Result<(), OpError> {
    let container = runtime.inventory.container(id)?;
    let runtime = Arc::clone(runtime);
    runtime
        .clone()
        .detached(async move {
            let pod = runtime.inventory.pod(&container.pod_id())?;
            let _changing = pod.lock.lock().await;
            let record = container.record();
            if !record.phase.can_start() {
                return Err(OpError::State(format!(
                    "container {} cannot be started: it is {:?}, not created",
                    record.id, record.phase
                )));
            }
            if !pod.record().phase.can_hold_containers() {
                return Err(OpError::State(format!(
                    "pod sandbox {} is not ready",
                    record.pod_id
                )));
            }
            // Running is written first: if the process ends at once, the watcher must find it started.
            container
                .commit(&runtime.store, Lasting::Process, |r| {
                    let free = r.phase.can_start();
                    if free {
                        r.phase = ContainerPhase::Running;
                        r.started_at = now();
                    }
                    free
                })
                .await?;
            nexcage_failpoint::hit("container.starting");
            // The wait for the disk and for crun at once.
            let (started, kept) = tokio::join!(
                runtime.oci.start(&record.id),
                container.commit(&runtime.store, Lasting::Disk, |_| true)
            );
            nexcage_failpoint::hit("container.started");
            if let Err(error) = kept {
                tracing::warn!(
                    container = record.id,
                    error = %Chain(&error),
                    "that it was started is not on disk yet"
                );
            }
            let Err(error) = started else {
                tracing::info!(container = record.id, "container started");
                return Ok(());
            };
            let message = Chain(&error).to_string();
            container
                .commit(&runtime.store, Lasting::Disk, |r| {
                    r.phase = ContainerPhase::Exited;
                    r.exit = Some(Exit {
                        code: START_ERROR,
                        finished_at: now(),
                        reason: "StartError".into(),
                        message,
                    });
                    true
                })
                .await?;
            let what = format!("cannot start container {}", record.id);
            let not_there = matches!(error, OciError::NotFound { .. });
            let error = OpError::failed(what, error);
            Err(match not_there {
                true => ended::container(error, &pod.record(), &record).await,
                false => ended::with_container(error, &pod.record(), &record).await,
            })
        })
        .await
}
