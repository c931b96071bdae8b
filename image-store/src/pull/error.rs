//! Why a pull failed.

use std::time::Duration;

use crate::layer_store::LayerStoreError;

/// Why a pull failed. `detail` holds what each registry host that was asked said, in their own
/// words where they have any.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The registry does not have it.
    #[error("{reference} does not exist: {detail}")]
    NotFound {
        /// What was to be pulled.
        reference: String,
        /// What the registry said.
        detail: String,
    },
    /// The registry does not give it to these credentials.
    #[error("access to {reference} is denied: {detail}")]
    Unauthorized {
        /// What was to be pulled.
        reference: String,
        /// What the registry said.
        detail: String,
    },
    /// The registry wants fewer requests.
    #[error("the registry limits requests for {reference}: {detail}")]
    RateLimited {
        /// What was to be pulled.
        reference: String,
        /// What the registry said.
        detail: String,
        /// When it wants to be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// No host could be reached, or they failed.
    #[error("no registry could serve {reference}: {detail}")]
    Unavailable {
        /// What was to be pulled.
        reference: String,
        /// What happened at each host.
        detail: String,
        /// Whether asking again may help: not if a certificate is not trusted.
        retryable: bool,
    },
    /// Nothing arrived for the progress timeout.
    #[error("{reference}: {detail}")]
    Timeout {
        /// What was to be pulled.
        reference: String,
        /// What was reached.
        detail: String,
    },
    /// What the registry sent is wrong: a digest, a length, a document.
    #[error("{reference} is not valid: {detail}")]
    Invalid {
        /// What was to be pulled.
        reference: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It is something that cannot be run here: not an image, for another platform, too large.
    #[error("{reference} cannot be used: {detail}")]
    Unsupported {
        /// What was to be pulled.
        reference: String,
        /// Why.
        detail: String,
    },
    /// The registry settings or the credentials file of this node are wrong.
    #[error("registry settings for {reference} cannot be used: {detail}")]
    Settings {
        /// What was to be pulled.
        reference: String,
        /// What is wrong with them.
        detail: String,
    },
    /// The layer store could not take a layer.
    #[error("a layer of {reference} cannot be stored")]
    LayerStore {
        /// What was to be pulled.
        reference: String,
        /// Why.
        #[source]
        source: LayerStoreError,
    },
    /// The spool could not be written.
    #[error("{doing}")]
    Spool {
        /// What was being done, with the path.
        doing: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The image records cannot be read or written.
    #[error("image records cannot be used")]
    Records(#[from] nexcage_sqlite::DatabaseError),
    /// The daemon is ending.
    #[error("the image store is closing")]
    Closing,
}

impl PullError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            // The registry or the network may recover, the daemon comes back.
            Self::RateLimited { .. } | Self::Timeout { .. } | Self::Closing => true,
            Self::Unavailable { retryable, .. } => *retryable,
            Self::LayerStore { source, .. } => source.is_retryable(),
            Self::Records(source) => source.is_retryable(),
            // A full disk may get room again.
            Self::Spool { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            // Somebody has to change the image, the request or the settings.
            Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::Invalid { .. }
            | Self::Unsupported { .. }
            | Self::Settings { .. } => false,
        }
    }
}
