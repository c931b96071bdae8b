//! One at a time for each container: Proxmox lets whoever comes second wait for ten seconds, and then fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Who waits for which container. An entry lives as long as somebody waits or works.
#[derive(Debug, Default)]
pub(super) struct Turns {
    queues: Mutex<HashMap<u32, Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// First come, first served.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Those who wait, and the one who works.
    users: usize,
}

/// The right to change one container, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    // Dropped before the place, or somebody could come in by a new entry.
    _guard: OwnedMutexGuard<()>,
    _place: Place<'a>,
}

/// Keeps the entry alive.
#[derive(Debug)]
struct Place<'a> {
    turns: &'a Turns,
    vmid: u32,
}

impl Turns {
    /// Waits until nobody else changes this container. A caller that gives up leaves the queue.
    pub(super) async fn wait(&self, vmid: u32) -> Turn<'_> {
        let (place, turn) = self.join(vmid);
        let guard = turn.lock_owned().await;
        Turn {
            _guard: guard,
            _place: place,
        }
    }

    fn join(&self, vmid: u32) -> (Place<'_>, Arc<tokio::sync::Mutex<()>>) {
        let mut queues = self.lock();
        let queue = queues.entry(vmid).or_default();
        queue.users += 1;
        let place = Place { turns: self, vmid };
        (place, queue.turn.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = self.turns.lock();
        if let Some(queue) = queues.get_mut(&self.vmid) {
            queue.users -= 1;
            if queue.users == 0 {
                queues.remove(&self.vmid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn one_at_a_time_for_each_container() {
        let turns = Turns::default();
        let first = turns.wait(100).await;
        let _other = turns.wait(101).await;
        assert!(timeout(SOON, turns.wait(100)).await.is_err());
        drop(first);
        timeout(SOON, turns.wait(100)).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_kept() {
        let turns = Turns::default();
        {
            let _first = turns.wait(100).await;
            // Gives up while it waits.
            assert!(timeout(SOON, turns.wait(100)).await.is_err());
            assert_eq!(turns.lock().len(), 1);
        }
        assert!(turns.lock().is_empty());
    }

    #[tokio::test]
    async fn in_the_order_of_asking() {
        let turns = Arc::new(Turns::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = turns.wait(100).await;
        let mut tasks = Vec::new();
        for number in 0..5 {
            let (turns, order) = (turns.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let _turn = turns.wait(100).await;
                order.lock().unwrap().push(number);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    }
}
