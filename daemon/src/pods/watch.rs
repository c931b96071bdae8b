//! Noticing that a sandbox has ended by itself: an admin stopped the container, its init crashed.

use std::sync::Arc;

use super::Pod;
use super::record::PodPhase;
use crate::error::Chain;
use crate::pidfd;
use crate::runtime::Runtime;

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
                Ok(()) => mark_ended(&runtime, &pod).await,
                Err(error) => tracing::warn!(pod = pod.id(), %error, "cannot watch the sandbox"),
            },
            // Cancel-safe per docs on `watch::Receiver::wait_for`. Somebody is stopping the pod.
            () = async { let _ = phases.wait_for(|phase| *phase != PodPhase::Ready).await.map(drop); } => {}
            // Cancel-safe per docs on `CancellationToken::cancelled`. The daemon ends, the pod goes on.
            () = runtime.stopping.cancelled() => {}
        }
    });
}

async fn mark_ended(runtime: &Arc<Runtime>, pod: &Arc<Pod>) {
    let _changing = pod.lock.lock().await;
    if pod.record().phase != PodPhase::Ready {
        return;
    }
    tracing::warn!(pod = pod.id(), "the sandbox has ended by itself");
    if let Err(error) = pod
        .commit(&runtime.store, |r| r.phase = PodPhase::NotReady)
        .await
    {
        tracing::error!(pod = pod.id(), error = %Chain(&error), "cannot record the pod's end");
    }
}
