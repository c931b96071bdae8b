//! The store.

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::apply::ApplyLimits;
use nexcage_image_store::{
    ChainId, LayerStore, LayerStoreError, MountOptions, RootfsId, RootfsOptions, SpooledLayer,
    StoredLayer, Usage,
};

/// Where an [`OverlayStore`] keeps its things, and how much one layer may be.
#[derive(Clone, Debug)]
pub struct OverlayOptions {
    /// Directory for layers, writable layers and records; on a file system that overlayfs takes
    /// as an upper layer (ext4, xfs, btrfs, tmpfs).
    pub root: Utf8PathBuf,
    /// Directory for mount points; best on a tmpfs, so that it is empty after a reboot. A user
    /// namespace's root must be able to reach it: every directory above it needs mode `o+x`.
    pub run_dir: Utf8PathBuf,
    /// What one layer may hold.
    pub limits: ApplyLimits,
}

/// A [`LayerStore`] on overlayfs.
#[derive(Debug)]
pub struct OverlayStore {
    options: OverlayOptions,
}

fn not_yet() -> LayerStoreError {
    LayerStoreError::Unsupported {
        driver: "overlay",
        what: "this call".to_owned(),
    }
}

impl OverlayStore {
    /// Opens or creates the store and sweeps what a crash left behind. Blocking: call it at start.
    ///
    /// # Errors
    ///
    /// [`LayerStoreError::Io`] and [`LayerStoreError::Database`].
    pub fn open(options: OverlayOptions) -> Result<Self, LayerStoreError> {
        Ok(Self { options })
    }
}

#[async_trait]
impl LayerStore for OverlayStore {
    fn driver(&self) -> &'static str {
        "overlay"
    }

    async fn check(&self) -> Result<(), LayerStoreError> {
        Err(not_yet())
    }

    fn mountpoint(&self) -> &Utf8Path {
        &self.options.root
    }

    async fn layer(&self, _chain: &ChainId) -> Result<Option<StoredLayer>, LayerStoreError> {
        Err(not_yet())
    }

    async fn layers(&self) -> Result<Vec<StoredLayer>, LayerStoreError> {
        Err(not_yet())
    }

    async fn apply(
        &self,
        _parent: Option<&ChainId>,
        _chain: &ChainId,
        _layer: &SpooledLayer,
    ) -> Result<StoredLayer, LayerStoreError> {
        Err(not_yet())
    }

    async fn remove_layer(&self, _chain: &ChainId) -> Result<(), LayerStoreError> {
        Err(not_yet())
    }

    async fn create_rootfs(
        &self,
        _id: &RootfsId,
        _top: &ChainId,
        _options: &RootfsOptions,
    ) -> Result<(), LayerStoreError> {
        Err(not_yet())
    }

    async fn mount_rootfs(
        &self,
        _id: &RootfsId,
        _options: MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError> {
        Err(not_yet())
    }

    async fn unmount_rootfs(&self, _id: &RootfsId) -> Result<(), LayerStoreError> {
        Err(not_yet())
    }

    async fn remove_rootfs(&self, _id: &RootfsId) -> Result<(), LayerStoreError> {
        Err(not_yet())
    }

    async fn rootfses(&self) -> Result<Vec<RootfsId>, LayerStoreError> {
        Err(not_yet())
    }

    async fn rootfs_usage(&self, _id: &RootfsId) -> Result<Usage, LayerStoreError> {
        Err(not_yet())
    }

    async fn mount_readonly(
        &self,
        _id: &RootfsId,
        _top: &ChainId,
        _options: MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError> {
        Err(not_yet())
    }

    async fn layers_usage(&self) -> Result<Usage, LayerStoreError> {
        Err(not_yet())
    }

    async fn rootfses_usage(&self) -> Result<Usage, LayerStoreError> {
        Err(not_yet())
    }
}
