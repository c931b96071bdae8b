//! The store: the seam's methods, each one blocking task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::apply::ApplyLimits;
use nexcage_image_store::{
    ChainId, LayerStore, LayerStoreError, MountOptions, RootfsId, RootfsOptions, SpooledLayer,
    StoredLayer, Usage,
};

use crate::chores::Chores;
use crate::error::{DRIVER, Doing};
use crate::layers::Job;
use crate::records::Records;
use crate::sweep::{Places, boot_id, sweep, try_mount};
use crate::usage::Cache;

/// Where an [`OverlayStore`] keeps its things, and how much one layer may be.
#[derive(Clone, Debug)]
pub struct OverlayOptions {
    /// Directory for layers, writable layers and records; on a file system that overlayfs takes
    /// as an upper layer (ext4, xfs, btrfs, tmpfs). At most 180 bytes, without `:`, `,` and `\`.
    pub root: Utf8PathBuf,
    /// Directory for mount points; best on a tmpfs, so that it is empty after a reboot. A user
    /// namespace's root must be able to reach it: it and every directory above it need mode `o+x`.
    pub run_dir: Utf8PathBuf,
    /// What one layer may hold.
    pub limits: ApplyLimits,
}

/// A [`LayerStore`] on overlayfs. Dropping it ends its thread and waits for that.
#[derive(Debug)]
pub struct OverlayStore {
    inner: Arc<Inner>,
}

/// What blocking tasks work with.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) places: Places,
    pub(crate) limits: ApplyLimits,
    pub(crate) records: Records,
    pub(crate) chores: Chores,
    pub(crate) usages: Cache,
}

impl OverlayStore {
    /// Opens or creates the store and sweeps what a crash left behind. Blocking: call it at
    /// start. Must be called as root, and by one process at a time per `root`.
    ///
    /// # Errors
    ///
    /// [`LayerStoreError::Io`] if the directories cannot be made or an overlay cannot be mounted
    /// there, [`LayerStoreError::Database`] if the records cannot be read.
    pub fn open(options: OverlayOptions) -> Result<Self, LayerStoreError> {
        let places = Places::new(&options.root, &options.run_dir);
        places.make()?;
        let records = Records::open(&places.root.join("overlay.db"), &boot_id()?)?;
        let chores = Chores::start(places.trash.clone(), records.clone())?;
        sweep(&places, &records, &chores)?;
        try_mount(&places)?;
        Ok(Self {
            inner: Arc::new(Inner {
                places,
                limits: options.limits,
                records,
                chores,
                usages: Cache::default(),
            }),
        })
    }

    /// Runs `work` where it may block. It runs to its end even if nobody waits for it any more.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, LayerStoreError> + Send + 'static,
    ) -> Result<T, LayerStoreError> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            Err(e) => Err(LayerStoreError::Io {
                doing: "running a task of the storage driver".to_owned(),
                source: std::io::Error::other(e),
            }),
        }
    }
}

/// Sets a flag when dropped.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl LayerStore for OverlayStore {
    fn driver(&self) -> &'static str {
        DRIVER
    }

    async fn check(&self) -> Result<(), LayerStoreError> {
        self.inner.records.check().await?;
        self.blocking(|inner| {
            let probe = inner.places.root.join("check");
            let written = std::fs::write(&probe, b"nexcage");
            // On a full disk there may be room for an empty file.
            let removed = std::fs::remove_file(&probe);
            written.doing("writing", &probe)?;
            removed.doing("removing", &probe)
        })
        .await
    }

    fn mountpoint(&self) -> &Utf8Path {
        &self.inner.places.root
    }

    async fn layer(&self, chain: &ChainId) -> Result<Option<StoredLayer>, LayerStoreError> {
        self.inner.records.layer(chain).await
    }

    async fn layers(&self) -> Result<Vec<StoredLayer>, LayerStoreError> {
        self.inner.records.layers().await
    }

    async fn apply(
        &self,
        parent: Option<&ChainId>,
        chain: &ChainId,
        layer: &SpooledLayer,
    ) -> Result<StoredLayer, LayerStoreError> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job {
            parent: parent.cloned(),
            chain: chain.clone(),
            tar: layer.tar.clone(),
            diff_id: layer.diff_id.clone(),
            cancelled: cancelled.clone(),
        };
        let _cancel = SetOnDrop(cancelled);
        self.blocking(move |inner| inner.apply(&job)).await
    }

    // A removal takes all of it with it.
    async fn reclaim(&self, _: &[ChainId]) {}

    async fn remove_layer(&self, chain: &ChainId) -> Result<(), LayerStoreError> {
        let chain = chain.clone();
        self.blocking(move |inner| inner.remove_layer(&chain)).await
    }

    async fn create_rootfs(
        &self,
        id: &RootfsId,
        top: &ChainId,
        options: &RootfsOptions,
    ) -> Result<(), LayerStoreError> {
        let (id, top, options) = (id.clone(), top.clone(), options.clone());
        self.blocking(move |inner| inner.create_rootfs(&id, &top, &options))
            .await
    }

    async fn mount_rootfs(
        &self,
        id: &RootfsId,
        options: MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError> {
        let id = id.clone();
        self.blocking(move |inner| inner.mount_rootfs(&id, &options))
            .await
    }

    async fn unmount_rootfs(&self, id: &RootfsId) -> Result<(), LayerStoreError> {
        let id = id.clone();
        self.blocking(move |inner| inner.unmount_rootfs(&id)).await
    }

    async fn remove_rootfs(&self, id: &RootfsId) -> Result<(), LayerStoreError> {
        let id = id.clone();
        self.blocking(move |inner| inner.remove_rootfs(&id)).await
    }

    async fn rootfses(&self) -> Result<Vec<RootfsId>, LayerStoreError> {
        self.inner.records.rootfses().await
    }

    async fn rootfs_usage(&self, id: &RootfsId) -> Result<Usage, LayerStoreError> {
        let id = id.clone();
        self.blocking(move |inner| inner.rootfs_usage(&id)).await
    }

    async fn mount_readonly(
        &self,
        id: &RootfsId,
        top: &ChainId,
        options: MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError> {
        let (id, top) = (id.clone(), top.clone());
        self.blocking(move |inner| inner.mount_readonly(&id, &top, &options))
            .await
    }

    async fn layers_usage(&self) -> Result<Usage, LayerStoreError> {
        self.inner.records.layers_usage().await
    }

    async fn rootfses_usage(&self) -> Result<Usage, LayerStoreError> {
        self.blocking(Inner::rootfses_usage).await
    }
}
