//! One creation at a time under one name; whoever asks meanwhile gets its result.
//!
//! kubelet gives up on a slow call and calls again with the same name and attempt. The
//! first call goes on in a task of its own; the retry waits for it instead of
//! being told forever that the name is taken.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::error::OpError;

type Outcome = Option<Result<String, Arc<OpError>>>;

/// Creations under way, by name.
#[derive(Clone, Debug)]
pub(crate) struct Inflight {
    running: Arc<Mutex<HashMap<String, watch::Receiver<Outcome>>>>,
    tasks: TaskTracker,
}

impl Inflight {
    /// Creations become tasks of `tasks`.
    pub(crate) fn new(tasks: TaskTracker) -> Self {
        Self {
            running: Arc::default(),
            tasks,
        }
    }

    /// Runs `create` unless one runs under `name`, and waits for whichever it is. Dropping
    /// the future does not stop the creation.
    pub(crate) async fn run<F>(&self, name: String, create: F) -> Result<String, Arc<OpError>>
    where
        F: Future<Output = Result<String, OpError>> + Send + 'static,
    {
        let mut outcome = self.join(name, create);
        let done = outcome.wait_for(Option::is_some).await;
        match done.as_deref() {
            Ok(Some(result)) => result.clone(),
            // The task panicked: its sender is gone without a word.
            _ => Err(Arc::new(OpError::State(
                "the creation ended without a result".into(),
            ))),
        }
    }

    fn join<F>(&self, name: String, create: F) -> watch::Receiver<Outcome>
    where
        F: Future<Output = Result<String, OpError>> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.entry(name.clone()) {
            Entry::Occupied(first) => first.get().clone(),
            Entry::Vacant(free) => {
                let (tell, outcome) = watch::channel(None);
                free.insert(outcome.clone());
                let done = Done {
                    of: Arc::clone(&self.running),
                    name,
                };
                self.tasks.spawn(async move {
                    let result = create.await.map_err(Arc::new);
                    // The name is free before the result is known, so that a caller
                    // who sees a failure can try again at once.
                    drop(done);
                    tell.send_replace(Some(result));
                });
                outcome
            }
        }
    }
}

/// Frees the name, also when the creation panics.
struct Done {
    of: Arc<Mutex<HashMap<String, watch::Receiver<Outcome>>>>,
    name: String,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.of
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_retry_gets_the_first_ones_result() {
        let inflight = Inflight::new(TaskTracker::new());
        let calls = Arc::new(AtomicU32::new(0));
        let create = || {
            let calls = Arc::clone(&calls);
            async move {
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Ok("id".to_owned())
            }
        };
        // The first caller gives up.
        let first = inflight.run("a".into(), create());
        let gave_up = tokio::time::timeout(std::time::Duration::from_millis(10), first).await;
        assert!(gave_up.is_err());
        assert_eq!(inflight.run("a".into(), create()).await.unwrap(), "id");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_failure_frees_the_name() {
        let inflight = Inflight::new(TaskTracker::new());
        let fail = async { Err(OpError::State("no".into())) };
        assert!(inflight.run("a".into(), fail).await.is_err());
        assert_eq!(
            inflight
                .run("a".into(), async { Ok("id".into()) })
                .await
                .unwrap(),
            "id"
        );
    }
}
