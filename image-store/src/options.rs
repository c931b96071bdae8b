//! Settings of the image store.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;

use crate::layer_store::LayerStore;
use crate::platform::Platform;
use crate::registry::Registries;

/// Settings of an [`ImageStore`](crate::ImageStore).
#[derive(Clone, Debug)]
pub struct ImageStoreOptions {
    /// Directory of the store's own: `images.db` and `spool/`. Made if it is not there.
    pub root: Utf8PathBuf,
    /// Where layers are unpacked to.
    pub layers: Arc<dyn LayerStore>,
    /// Mirrors and servers.
    pub registries: Registries,
    /// Layers of one pull that are downloaded at the same time; at least 1.
    pub max_parallel_downloads: usize,
    /// A pull fails when no byte has arrived for so long.
    pub progress_timeout: Duration,
    /// Largest manifest, index or config, in bytes.
    pub max_manifest_bytes: u64,
    /// Largest layer, in bytes, both compressed and as a tar stream.
    pub max_layer_bytes: u64,
    /// References of images that kubelet must not remove to get space.
    pub pinned: Vec<String>,
    /// A Docker `config.json` whose `auths` are used for pulls without credentials, and for
    /// mirrors. Read at every pull.
    pub credentials_file: Option<Utf8PathBuf>,
    /// What to take from an index.
    pub platform: Platform,
    /// How often and when a failed request is repeated.
    pub retry: RetryPolicy,
}

/// How often and when a failed request is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Rounds through all hosts without progress before giving up; at least 1.
    pub tries: u32,
    /// Wait after the first failed round; it doubles with every further one.
    pub first_delay: Duration,
    /// Longest wait, also if a registry asks for more by `Retry-After`; then the pull fails and says so.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 5,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(60),
        }
    }
}

impl ImageStoreOptions {
    /// The usual settings, with no mirrors and no credentials.
    pub fn new(root: Utf8PathBuf, layers: Arc<dyn LayerStore>) -> Self {
        Self {
            root,
            layers,
            registries: Registries::default(),
            max_parallel_downloads: 3,
            progress_timeout: Duration::from_secs(300),
            max_manifest_bytes: 4 << 20,
            max_layer_bytes: 64 << 30,
            pinned: Vec::new(),
            credentials_file: None,
            platform: Platform::host(),
            retry: RetryPolicy::default(),
        }
    }
}
