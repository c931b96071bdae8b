//! Telling systemd that the daemon is not just alive but able to work (sd_watchdog_enabled(3)).

use std::sync::Arc;

use nexcage_sqlite::DatabaseError;
use nexcage_systemd::{Notifier, watchdog_interval};
use tokio::time::error::Elapsed;

use crate::error::{Chain, is_out_of_space};
use crate::runtime::Runtime;

/// Serves the watchdog, if the unit has one, until the daemon ends. A daemon that its database does not answer is not reported
/// alive, and systemd restarts it: pods go on meanwhile. A disk that is full, or that failed, is no reason. A new daemon could
/// write it as little and would not even start, while this one still tells what there is; Status says that it is not ready.
pub(crate) fn spawn(runtime: &Arc<Runtime>, notifier: Notifier) {
    let Some(interval) = watchdog_interval() else {
        return;
    };
    let runtime = Arc::clone(runtime);
    runtime.tasks.clone().spawn(async move {
        loop {
            let answer = tokio::time::timeout(interval, runtime.store.check()).await;
            if let Ok(Err(error)) = &answer
                && !is_out_of_space(error)
            {
                tracing::error!(error = %Chain(error), "the database cannot be written");
            }
            match would_be_helped(&answer) {
                None => notifier.watchdog(),
                Some(problem) => tracing::error!(?interval, problem, "no sign of life for systemd"),
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

/// What is wrong that a restart helps against. The async runtime runs, since this does; what may not is the thread that owns the
/// database, which every request waits for.
fn would_be_helped(answer: &Result<Result<(), DatabaseError>, Elapsed>) -> Option<&'static str> {
    match answer {
        Err(_) => Some("the database does not answer"),
        Ok(Err(DatabaseError::Closed)) => Some("the database thread has ended"),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nexcage_sqlite::rusqlite;

    use super::*;

    fn failure(code: std::os::raw::c_int) -> DatabaseError {
        let error = rusqlite::ffi::Error::new(code);
        DatabaseError::Statement(rusqlite::Error::SqliteFailure(error, None))
    }

    #[test]
    fn a_disk_is_not_mended_by_a_restart() {
        for code in [
            rusqlite::ffi::SQLITE_FULL,
            rusqlite::ffi::SQLITE_IOERR,
            rusqlite::ffi::SQLITE_READONLY,
        ] {
            assert_eq!(would_be_helped(&Ok(Err(failure(code)))), None);
        }
        assert_eq!(would_be_helped(&Ok(Ok(()))), None);
    }

    #[tokio::test]
    async fn a_database_that_is_gone_or_silent_is() {
        assert_eq!(
            would_be_helped(&Ok(Err(DatabaseError::Closed))),
            Some("the database thread has ended")
        );
        let silent = tokio::time::timeout(Duration::from_millis(1), std::future::pending()).await;
        assert_eq!(
            would_be_helped(&silent),
            Some("the database does not answer")
        );
    }
}
