//! Rounds: every pod and every backend from time to time, each on its own, so that one that is slow holds up no other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nexcage_sandbox::SandboxBackend;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::pods::{self, When};
use super::sweep::{self, Sweeping};
use crate::pods::Pod;
use crate::runtime::{Runtime, proxmox_ready};

/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(30);

/// Pods of one backend that are looked at at the same time; and so, how many threads a backend can block that does not
/// answer.
const AT_ONCE: usize = 16;

/// Goes round until the daemon ends.
pub(crate) fn spawn(runtime: &Arc<Runtime>) {
    let rounds = Rounds::new(runtime);
    repeat(runtime, move |runtime| {
        rounds.begin(&runtime);
        std::future::ready(())
    });
    let sweeping = Arc::new(Sweeping::default());
    for backend in runtime.backends.all() {
        spawn_sweep(runtime, Arc::clone(backend), Arc::clone(&sweeping));
    }
    if runtime.backends.proxmox().is_some() {
        let last = Arc::new(tokio::sync::Mutex::new(None));
        repeat(runtime, move |runtime| {
            let last = Arc::clone(&last);
            async move { tell_of_proxmox(&runtime, &mut *last.lock().await).await }
        });
    }
}

fn spawn_sweep(runtime: &Arc<Runtime>, backend: Arc<dyn SandboxBackend>, sweeping: Arc<Sweeping>) {
    repeat(runtime, move |runtime| {
        let (backend, sweeping) = (Arc::clone(&backend), Arc::clone(&sweeping));
        async move { sweep::sandboxes(&runtime, &backend, &sweeping).await }
    });
}

/// Does something after every pause, until the daemon ends.
fn repeat<F>(runtime: &Arc<Runtime>, mut work: impl FnMut(Arc<Runtime>) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let every = nexcage_failpoint::interval(EVERY);
    let (runtime, tracker) = (Arc::clone(runtime), runtime.tasks.clone());
    tracker.spawn(async move {
        loop {
            tokio::select! {
                // Cancel-safe: a timer.
                () = tokio::time::sleep(every) => {}
                // Cancel-safe per docs on `CancellationToken::cancelled`.
                () = runtime.stopping.cancelled() => return,
            }
            tokio::select! {
                // Dropped only when the daemon ends: what it leaves half done, the next start puts right.
                () = work(Arc::clone(&runtime)) => {}
                // Cancel-safe per docs on `CancellationToken::cancelled`.
                () = runtime.stopping.cancelled() => return,
            }
        }
    });
}

/// The turns of pods.
#[derive(Debug)]
pub(super) struct Rounds {
    /// By the name of the backend.
    places: HashMap<&'static str, Arc<Semaphore>>,
    look_deadline: Option<Duration>,
}

/// That it is a pod's turn. There is no other until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    pod: Arc<Pod>,
    look_deadline: Option<Duration>,
    _place: OwnedSemaphorePermit,
}

impl Turn {
    /// How long a look may take, if it is not as usual.
    pub(super) fn look_deadline(&self) -> Option<Duration> {
        self.look_deadline
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.pod.end_turn();
    }
}

impl Rounds {
    pub(super) fn new(runtime: &Runtime) -> Self {
        let place = |b: &Arc<dyn SandboxBackend>| (b.name(), Arc::new(Semaphore::new(AT_ONCE)));
        Self {
            places: runtime.backends.all().map(place).collect(),
            look_deadline: None,
        }
    }

    #[cfg(test)]
    pub(super) fn with_look_deadline(self, limit: Duration) -> Self {
        Self {
            look_deadline: Some(limit),
            ..self
        }
    }

    /// Gives every pod its turn that has none just now.
    pub(super) fn begin(&self, runtime: &Arc<Runtime>) -> Vec<JoinHandle<()>> {
        let pods = runtime.inventory.pods().into_iter();
        pods.filter_map(|pod| self.begin_turn(runtime, pod))
            .collect()
    }

    fn begin_turn(&self, runtime: &Arc<Runtime>, pod: Arc<Pod>) -> Option<JoinHandle<()>> {
        let place = Arc::clone(self.places.get(pod.record().backend.as_str())?);
        if !pod.begin_turn() {
            return None;
        }
        let (look_deadline, task_runtime) = (self.look_deadline, Arc::clone(runtime));
        Some(runtime.tasks.spawn(async move {
            // Never closed.
            let Ok(place) = place.acquire_owned().await else {
                pod.end_turn();
                return;
            };
            let turn = Arc::new(Turn {
                pod: Arc::clone(&pod),
                look_deadline,
                _place: place,
            });
            // Whoever works on it now leaves it as its record says, or in a phase for the next round.
            let Ok(_changing) = pod.lock.try_lock() else {
                return;
            };
            pods::settle(&task_runtime, &pod, When::Turn(turn)).await;
        }))
    }
}

/// Logs when Proxmox can no longer make pods, why, and when it can again.
async fn tell_of_proxmox(runtime: &Runtime, last: &mut Option<(&'static str, String)>) {
    let Some(condition) = proxmox_ready(runtime).await else {
        return;
    };
    match (&condition.problem, &last) {
        (Some((reason, message)), was) if was.as_ref().is_none_or(|(last, _)| last != reason) => {
            tracing::warn!(
                reason,
                message,
                "no pods can be made as containers of Proxmox"
            );
        }
        (None, Some(_)) => tracing::info!("pods can be made as containers of Proxmox again"),
        _ => {}
    }
    *last = condition.problem;
}
