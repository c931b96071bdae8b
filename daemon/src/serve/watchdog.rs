//! Telling systemd that the daemon is not just alive but able to work (sd_watchdog_enabled(3)).

use std::sync::Arc;
use std::time::Duration;

use nexcage_systemd::{Notifier, watchdog_interval};

use crate::error::{Chain, is_out_of_space};
use crate::runtime::Runtime;

/// Serves the watchdog, if the unit has one, until the daemon ends. A daemon whose database does not answer in time, or cannot be
/// written, is not reported alive, and systemd restarts it: pods go on meanwhile. A full disk is no reason: somebody has to serve
/// kubelet when it makes room.
pub(crate) fn spawn(runtime: &Arc<Runtime>, notifier: Notifier) {
    let Some(interval) = watchdog_interval() else {
        return;
    };
    let runtime = Arc::clone(runtime);
    runtime.tasks.clone().spawn(async move {
        loop {
            if is_well(&runtime, interval).await {
                notifier.watchdog();
            }
            tokio::select! {
                // Cancel-safe: a timer.
                () = tokio::time::sleep(interval) => {}
                // Cancel-safe per docs on `CancellationToken::cancelled`.
                () = runtime.stopping.cancelled() => return,
            }
        }
    });
}

/// The async runtime runs, since this does; the database's thread writes, or would if there were room.
async fn is_well(runtime: &Runtime, within: Duration) -> bool {
    match tokio::time::timeout(within, runtime.store.check()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) if is_out_of_space(&error) => true,
        Ok(Err(error)) => {
            tracing::error!(error = %Chain(&error), "the database cannot be written");
            false
        }
        Err(_) => {
            tracing::error!(?within, "the database does not answer");
            false
        }
    }
}
