//! An image store with all it needs, in a directory of its own.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use nexcage_image_store::{
    Credentials, ImageRecord, ImageStore, ImageStoreOptions, PullError, RetryPolicy,
};

use crate::layer_store::MemoryLayers;

pub(crate) struct House {
    dir: tempfile::TempDir,
    pub(crate) layers: Arc<MemoryLayers>,
    pub(crate) store: ImageStore,
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ImageStoreOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers = Arc::new(MemoryLayers::default());
        let store = open(&dir, &layers, change).await;
        Self { dir, layers, store }
    }

    /// As after a restart of the daemon: the layer store is still there.
    pub(crate) async fn reopen(self) -> Self {
        let Self { dir, layers, store } = self;
        store.close().await;
        drop(store);
        let store = open(&dir, &layers, |_| {}).await;
        Self { dir, layers, store }
    }

    pub(crate) fn root(&self) -> Utf8PathBuf {
        root(&self.dir)
    }

    pub(crate) async fn pull(&self, name: &str) -> Result<ImageRecord, PullError> {
        self.pull_as(name, Credentials::Anonymous).await
    }

    pub(crate) async fn pull_as(
        &self,
        name: &str,
        credentials: Credentials,
    ) -> Result<ImageRecord, PullError> {
        let reference = name.parse().unwrap();
        self.store.pull(&reference, credentials, None).await
    }

    /// Checks that a failed pull has left nothing: no image, no layer, no file.
    pub(crate) async fn assert_empty(&self) {
        assert_eq!(self.store.images().await.unwrap(), []);
        assert_eq!(self.layers.count(), 0);
        self.assert_spool_empty().await;
    }

    /// Files are removed on another thread, so they may take a moment.
    pub(crate) async fn assert_spool_empty(&self) {
        let spool = self.root().join("spool");
        for _ in 0..500 {
            if std::fs::read_dir(&spool).unwrap().count() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the spool is not empty");
    }
}

/// Waits until something is so.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Polls a future that cannot end, and drops it when something is so.
pub(crate) async fn drop_when<T: std::fmt::Debug>(
    future: impl Future<Output = T>,
    condition: impl Fn() -> bool,
) {
    tokio::select! {
        ended = future => panic!("ended by itself: {ended:?}"),
        () = until(condition) => {}
    }
}

fn root(dir: &tempfile::TempDir) -> Utf8PathBuf {
    Utf8PathBuf::try_from(dir.path().join("store")).unwrap()
}

async fn open(
    dir: &tempfile::TempDir,
    layers: &Arc<MemoryLayers>,
    change: impl FnOnce(&mut ImageStoreOptions),
) -> ImageStore {
    let mut options = ImageStoreOptions::new(root(dir), layers.clone());
    options.retry = RetryPolicy {
        tries: 4,
        first_delay: Duration::from_millis(10),
        max_delay: Duration::from_millis(500),
    };
    options.progress_timeout = Duration::from_secs(20);
    change(&mut options);
    ImageStore::open(options).await.unwrap()
}
