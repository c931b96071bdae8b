//! What a pull tells of itself while it runs.

use tokio::sync::watch;

use crate::digest::Digest;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
