//! Noticing that a container has ended.
//!
//! conmon outlives the daemon. When the container ends, it writes the exit file and
//! ends itself; so the end of conmon is the one thing to wait for, and the exit file, or its absence, tells
//! the rest. After a restart of the daemon the same code finds what happened meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::Container;
use super::record::{ContainerPhase, ContainerRecord, Exit, ProcessId};
use crate::error::Chain;
use crate::node::now;
use crate::pidfd;
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Pause before an end that could not be recorded is recorded after all.
const AGAIN: Duration = Duration::from_secs(1);

/// Exit code when nobody knows it, as containerd reports it.
const UNKNOWN_EXIT: i32 = 255;
/// Exit code of a process that SIGKILL ended.
const KILLED: i32 = 137;
const SIGKILL: i32 = 9;

/// Watches a created container until its end is on record.
pub(crate) fn spawn(runtime: &Arc<Runtime>, container: &Arc<Container>) {
    let (runtime, container) = (Arc::clone(runtime), Arc::clone(container));
    let tracker = runtime.tasks.clone();
    tracker.spawn(async move {
        let Some(conmon) = container.record().conmon else {
            return;
        };
        tokio::select! {
            // Cancel-safe: waiting for a pidfd to become readable takes nothing from it.
            ended = pidfd::wait(conmon.pid, conmon.start_time) => match ended {
                Ok(()) => see_the_end(&runtime, &container).await,
                Err(error) => {
                    tracing::warn!(container = container.id(), %error, "cannot watch conmon");
                }
            },
            // Cancel-safe per docs on `CancellationToken::cancelled`. The daemon ends, the container goes on.
            () = runtime.stopping.cancelled() => {}
        }
    });
}

/// Records how the container ended, however long the disk is full: until then it counts as running.
async fn see_the_end(runtime: &Arc<Runtime>, container: &Arc<Container>) {
    while !find_out(runtime, container).await {
        tokio::select! {
            // Cancel-safe per docs on `sleep`.
            () = tokio::time::sleep(AGAIN) => {}
            // Cancel-safe per docs on `CancellationToken::cancelled`. The next start finds it out.
            () = runtime.stopping.cancelled() => return,
        }
    }
}

/// conmon has ended: records how the container did. False if that could not be written.
pub(crate) async fn find_out(runtime: &Arc<Runtime>, container: &Arc<Container>) -> bool {
    let record = container.record();
    if !record.phase.may_live() {
        return true;
    }
    let exit = match runtime.oci.exit_record(&record.id) {
        Ok(Some(exit)) => reported(&exit),
        Ok(None) => unwatched(runtime, &record).await,
        Err(error) => {
            tracing::warn!(container = record.id, %error, "cannot read the exit file");
            unwatched(runtime, &record).await
        }
    };
    tracing::info!(
        container = record.id,
        code = exit.code,
        reason = exit.reason,
        "container ended"
    );
    let committed = container
        .commit(&runtime.store, Lasting::Disk, |r| {
            let open = r.phase.may_live();
            if open {
                r.phase = ContainerPhase::Exited;
                r.exit = Some(exit);
            }
            open
        })
        .await;
    if let Err(error) = &committed {
        tracing::error!(container = record.id, error = %Chain(error), "cannot record the end yet");
    }
    committed.is_ok()
}

fn reported(exit: &nexcage_oci_runtime::ExitRecord) -> Exit {
    let reason = match (exit.oom_killed, exit.exit_code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    Exit {
        code: exit.exit_code,
        finished_at: i64::try_from(exit.finished_at.as_nanosecond()).unwrap_or(i64::MAX),
        reason: reason.into(),
        message: String::new(),
    }
}

/// conmon was killed, or the machine was: there is no exit file. A container that still lives
/// has nobody to write its log or to tell of its end; it must not go on like that.
async fn unwatched(runtime: &Arc<Runtime>, record: &ContainerRecord) -> Exit {
    let alive = record
        .init
        .filter(|init| pidfd::is_alive(init.pid, init.start_time));
    let Some(init) = alive else {
        return Exit {
            code: UNKNOWN_EXIT,
            finished_at: now(),
            reason: "Unknown".into(),
            message: "it ended while nobody watched: its monitor or the node was killed".into(),
        };
    };
    tracing::warn!(
        container = record.id,
        "its monitor was killed; killing the container"
    );
    end_process(runtime, record, init).await;
    Exit {
        code: KILLED,
        finished_at: now(),
        reason: "Error".into(),
        message: "its monitor was killed, so it was killed too".into(),
    }
}

async fn end_process(runtime: &Arc<Runtime>, record: &ContainerRecord, init: ProcessId) {
    if let Err(error) = runtime.oci.kill(&record.id, SIGKILL, true).await {
        tracing::warn!(container = record.id, error = %Chain(&error), "cannot kill all of it");
    }
    if let Err(error) = pidfd::signal(init.pid, init.start_time, SIGKILL) {
        tracing::error!(container = record.id, %error, "cannot kill the container");
    }
}
