//! What nobody waits for: destroying what was in use when it was removed, and comparing the records with
//! the pool from time to time.

use std::sync::Arc;
use std::time::Duration;

use crate::store::Inner;

/// Between two comparisons of the records with the pool.
const COMPARE: Duration = Duration::from_secs(600);

/// Before what could not be destroyed is tried again; twice as long each time.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs for as long as the store lives: its handle aborts this.
pub(crate) async fn work(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            // Cancel-safe: a permit that was not taken stays.
            () = inner.wake.notified() => destroy(&inner).await,
            // Cancel-safe: it begins anew.
            () = tokio::time::sleep(COMPARE) => {
                inner.strike_lost_layers().await;
                destroy(&inner).await;
            }
        }
    }
}

/// Destroys what is left, until nothing is.
async fn destroy(inner: &Arc<Inner>) {
    let mut pause = PAUSE;
    loop {
        round(inner).await;
        if !inner.take_unfinished() {
            return;
        }
        tokio::select! {
            // Cancel-safe: a permit that was not taken stays. Somebody has removed something: that may be what
            // others were waiting for.
            () = inner.wake.notified() => pause = PAUSE,
            // Cancel-safe: it begins anew.
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

/// One attempt at everything, and another as long as that lets something else go.
pub(crate) async fn round(inner: &Inner) {
    let _images = inner.images.lock().await;
    loop {
        inner.take_unfinished();
        let gone = inner.collect_garbage().await + inner.collect_layers(None).await;
        if gone == 0 || !inner.is_unfinished() {
            break;
        }
    }
    inner.clean_images().await;
}
