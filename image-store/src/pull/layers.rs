//! The layers of one pull: fetched side by side, applied in order.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::oneshot;

use super::error::PullError;
use super::flight::{Boarding, Flight};
use super::inflate::{LayerContent, Spooled};
use super::progress::{LayerProgress, LayerState, Reporter};
use super::resolve::Resolved;
use crate::digest::{ChainId, Digest};
use crate::layer_store::StoredLayer;
use crate::registry::Session;
use crate::store::Shared;

/// All that is needed to bring the layers of an image into the layer store.
pub(super) struct LayerWork<'a> {
    pub(super) shared: &'a Shared,
    pub(super) session: &'a Session,
    pub(super) resolved: &'a Resolved,
    pub(super) diff_ids: &'a [Digest],
    pub(super) chain: &'a [ChainId],
    pub(super) reporter: &'a Reporter,
}

/// A layer on its way, as far as fetching goes.
enum Fetched {
    /// The layer store has it.
    Stored(StoredLayer),
    /// It is in the spool. The flight is kept until the layer is applied, so that a pull that asks
    /// meanwhile finds either the flight or the layer.
    Spooled(Arc<Flight>, Arc<Spooled>),
}

impl LayerWork<'_> {
    /// Fetches and applies all layers. Returns the space they take in the layer store, in bytes.
    pub(super) async fn run(&self) -> Result<u64, PullError> {
        let contents = self.contents();
        self.reporter.layers(
            contents
                .iter()
                .map(|content| LayerProgress {
                    digest: content.blob.digest.clone(),
                    total: content.blob.size,
                    downloaded: 0,
                    state: LayerState::Waiting,
                })
                .collect(),
        );
        let (senders, receivers): (Vec<_>, Vec<_>) =
            contents.iter().map(|_| oneshot::channel()).unzip();
        let parallel = self.shared.options.max_parallel_downloads.max(1);
        let fetch_all = stream::iter(contents.into_iter().zip(senders).enumerate())
            .map(|(position, (content, done))| async move {
                let fetched = self.fetch(position, &content).await?;
                // The other half waits for it, or has failed, and then so does all of this.
                let _ = done.send(fetched);
                Ok::<_, PullError>(())
            })
            .buffer_unordered(parallel)
            .try_collect::<()>();
        // Both halves run in this task, so that fetching goes on while a layer is applied, and all
        // of it ends when the pull is dropped.
        let ((), bytes) = tokio::try_join!(fetch_all, self.apply_all(receivers))?;
        Ok(bytes)
    }

    fn contents(&self) -> Vec<LayerContent> {
        self.resolved
            .blobs
            .layers
            .iter()
            .zip(self.diff_ids)
            .map(|(blob, diff_id)| LayerContent {
                blob: blob.clone(),
                diff_id: diff_id.clone(),
            })
            .collect()
    }

    /// Gets one layer into the spool, unless the layer store has it.
    async fn fetch(&self, position: usize, content: &LayerContent) -> Result<Fetched, PullError> {
        // First the flight, then the look into the store: whoever applies the layer in between
        // still holds the flight.
        let flight = self.shared.flights.get(content);
        if let Some(stored) = self.stored(position).await? {
            self.reporter.layer(position, LayerState::Applied);
            return Ok(Fetched::Stored(stored));
        }
        self.reporter.layer(position, LayerState::Downloading);
        let boarding = Boarding {
            session: self.session,
            host: self.resolved.host,
            content,
            spool: &self.shared.spool,
            progress_timeout: self.shared.options.progress_timeout,
            max_bytes: self.shared.options.max_layer_bytes,
        };
        let spooled = tokio::select! {
            // Cancel-safe, and never cancelled here: the other arm does not end.
            spooled = flight.run(boarding) => spooled?,
            // Only counts; cancelled when the layer is there.
            never = self.reporter.follow(position, || flight.arrived()) => match never {},
        };
        nexcage_failpoint::hit("image.layer-spooled");
        self.reporter.layer(position, LayerState::Spooled);
        Ok(Fetched::Spooled(flight, spooled))
    }

    async fn stored(&self, position: usize) -> Result<Option<StoredLayer>, PullError> {
        let chain = &self.chain[position];
        let lock = self.shared.chains.get(chain);
        let _one_at_a_time = lock.lock().await;
        self.shared
            .options
            .layers
            .layer(chain)
            .await
            .map_err(|source| self.store_error(source))
    }

    async fn apply_all(&self, fetched: Vec<oneshot::Receiver<Fetched>>) -> Result<u64, PullError> {
        let mut bytes = 0u64;
        for (position, fetched) in fetched.into_iter().enumerate() {
            // A sender is only dropped when fetching has failed, and that error ends the pull.
            let Ok(fetched) = fetched.await else {
                return std::future::pending().await;
            };
            let stored = match fetched {
                Fetched::Stored(stored) => stored,
                Fetched::Spooled(flight, spooled) => {
                    let stored = self.apply(position, flight, spooled).await?;
                    nexcage_failpoint::hit("image.layer-applied");
                    self.reporter.layer(position, LayerState::Applied);
                    stored
                }
            };
            bytes = bytes.saturating_add(stored.bytes);
        }
        Ok(bytes)
    }

    /// Applies one layer on top of those below it, which are in the store.
    ///
    /// Done in a task of its own that a dropped pull does not stop: the lock is held until the layer
    /// store has really finished, so that it never works twice on one layer.
    async fn apply(
        &self,
        position: usize,
        flight: Arc<Flight>,
        spooled: Arc<Spooled>,
    ) -> Result<StoredLayer, PullError> {
        let chain = self.chain[position].clone();
        let parent = position
            .checked_sub(1)
            .map(|below| self.chain[below].clone());
        let lock = self.shared.chains.get(&chain);
        let layers = self.shared.options.layers.clone();
        // Another lease: this pull's own may be gone before the task is.
        let lease = self.shared.leases.take(&self.chain[..=position]);
        let task = self.shared.tasks.spawn(async move {
            let guard = lock.lock_owned().await;
            let stored = layers
                .apply(parent.as_ref(), &chain, &spooled.layer())
                .await;
            drop((guard, flight, spooled, lease));
            stored
        });
        task.await
            .map_err(|_| PullError::Closing)?
            .map_err(|source| self.store_error(source))
    }

    fn store_error(&self, source: crate::layer_store::LayerStoreError) -> PullError {
        PullError::LayerStore {
            reference: self.session.subject(),
            source,
        }
    }
}
