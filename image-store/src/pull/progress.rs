//! What a pull tells of itself while it runs.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;

use crate::digest::Digest;

/// How often the bytes of a download are reported.
const TICK: Duration = Duration::from_millis(200);

/// Where a pull puts its news. Make one with `watch::channel(PullProgress::default())`.
pub type ProgressSender = watch::Sender<PullProgress>;

/// State of a pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// What it does.
    pub phase: PullPhase,
    /// The layers, lowest first; empty until they are known.
    pub layers: Vec<LayerProgress>,
}

/// What a pull does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPhase {
    /// Asking registries for manifest and config.
    #[default]
    Resolving,
    /// Downloading and unpacking layers.
    Layers,
    /// The image is recorded.
    Done,
}

/// State of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    /// Digest of the compressed blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub total: u64,
    /// Bytes of it that have arrived, by this pull or by another that wants the same blob.
    pub downloaded: u64,
    /// What is being done with it.
    pub state: LayerState,
}

/// What is being done with a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LayerState {
    /// Nothing yet.
    #[default]
    Waiting,
    /// Its blob is on the way.
    Downloading,
    /// Downloaded and verified; the layers below come first.
    Spooled,
    /// In the layer store.
    Applied,
}

/// A pull's pen: does nothing if nobody reads.
#[derive(Debug)]
pub(super) struct Reporter {
    sender: Option<ProgressSender>,
}

impl Reporter {
    pub(super) fn new(sender: Option<ProgressSender>) -> Self {
        Self { sender }
    }

    pub(super) fn phase(&self, phase: PullPhase) {
        self.change(|progress| progress.phase = phase);
    }

    pub(super) fn layers(&self, layers: Vec<LayerProgress>) {
        self.change(|progress| {
            progress.phase = PullPhase::Layers;
            progress.layers = layers;
        });
    }

    pub(super) fn layer(&self, position: usize, state: LayerState) {
        self.change(|progress| {
            if let Some(layer) = progress.layers.get_mut(position) {
                layer.state = state;
                if state > LayerState::Downloading {
                    layer.downloaded = layer.total;
                }
            }
        });
    }

    /// Repeats to the reader how far a download is, for as long as the returned future is polled.
    pub(super) async fn follow(&self, position: usize, arrived: impl Fn() -> u64) -> Infallible {
        if self.sender.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(TICK).await;
            self.change(|progress| {
                if let Some(layer) = progress.layers.get_mut(position) {
                    layer.downloaded = arrived();
                }
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut PullProgress)) {
        if let Some(sender) = &self.sender {
            sender.send_modify(change);
        }
    }
}
