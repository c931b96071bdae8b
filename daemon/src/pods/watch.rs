//! Noticing that a sandbox has ended by itself: an admin stopped the container, its init crashed.

use std::sync::Arc;
use std::time::Duration;

use super::Pod;
use super::record::PodPhase;
use crate::error::Chain;
use crate::pidfd;
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Pause before an end that could not be recorded is recorded after all.
const AGAIN: Duration = Duration::from_secs(1);

/// Watches a ready pod until it is no longer ready.
pub(crate) fn spawn(runtime: &Arc<Runtime>, pod: &Arc<Pod>) {
    let Some(running) = pod.record().running.clone() else {
        return;
    };
    let (runtime, pod) = (Arc::clone(runtime), Arc::clone(pod));
    let tracker = runtime.tasks.clone();
    tracker.spawn(async move {
        let mut phases = pod.phases();
        let init = running.init;
        tokio::select! {
            // Cancel-safe: waiting for a pidfd to become readable takes nothing from it.
            ended = pidfd::wait(init.pid, init.start_time) => match ended {
                Ok(()) => see_the_end(&runtime, &pod).await,
                Err(error) => tracing::warn!(pod = pod.id(), %error, "cannot watch the sandbox"),
            },
            // Cancel-safe per docs on `watch::Receiver::wait_for`. Somebody is stopping the pod.
            () = async { let _ = phases.wait_for(|phase| *phase != PodPhase::Ready).await.map(drop); } => {}
            // Cancel-safe per docs on `CancellationToken::cancelled`. The daemon ends, the pod goes on.
            () = runtime.stopping.cancelled() => {}
        }
    });
}

/// Records the end, however long the disk is full: until then the pod counts as ready.
async fn see_the_end(runtime: &Arc<Runtime>, pod: &Arc<Pod>) {
    tracing::warn!(pod = pod.id(), "the sandbox has ended");
    while !mark_ended(runtime, pod).await {
        tokio::select! {
            // Cancel-safe per docs on `sleep`.
            () = tokio::time::sleep(AGAIN) => {}
            // Cancel-safe per docs on `CancellationToken::cancelled`. The next start finds it out.
            () = runtime.stopping.cancelled() => return,
        }
    }
}

/// False if it could not be written.
async fn mark_ended(runtime: &Arc<Runtime>, pod: &Arc<Pod>) -> bool {
    let _changing = pod.lock.lock().await;
    if pod.record().phase != PodPhase::Ready {
        return true;
    }
    let marked = pod
        .commit(&runtime.store, Lasting::Disk, |r| {
            r.phase = PodPhase::NotReady;
            r.ended = Some("the first process of its sandbox has ended".to_owned());
        })
        .await;
    if let Err(error) = &marked {
        tracing::error!(pod = pod.id(), error = %Chain(error), "cannot record the pod's end yet");
    }
    marked.is_ok()
}
