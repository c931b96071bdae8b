//! The seam to what keeps layers and root filesystems on disk.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, Digest};

/// A complete, verified, decompressed layer waiting in the spool.
#[derive(Debug)]
pub struct SpooledLayer {
    /// The tar stream. Already checked against `diff_id`.
    pub tar: Utf8PathBuf,
    /// What the image's config calls it.
    pub diff_id: Digest,
    /// Length of the tar stream in bytes.
    pub bytes: u64,
}

/// What a store says of a layer it keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLayer {
    /// Its chain id: this layer on top of all below it.
    pub chain: ChainId,
    /// The layer below, if any.
    pub parent: Option<ChainId>,
    /// Space it takes, in bytes.
    pub bytes: u64,
    /// Files and directories in it.
    pub inodes: u64,
}

/// Space in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// Name of a container's root filesystem: the container's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RootfsId(pub String);

impl fmt::Display for RootfsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a container's root filesystem shall be.
#[derive(Clone, Debug, Default)]
pub struct RootfsOptions {
    /// Limit of the writable layer in bytes; a store that cannot enforce it refuses.
    pub quota_bytes: Option<u64>,
    /// Properties from the runtime handler or the pod (`recordsize`, ...); a store that does not
    /// know one refuses it by name.
    pub properties: BTreeMap<String, String>,
}

/// A state of a root filesystem that can be gone back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// `checkpoint-<seconds since 1970>`; says when it was made, not its place in the order.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Space that would be free without it, in bytes.
    pub bytes: u64,
}

/// How to mount a root filesystem.
#[derive(Debug, Default)]
pub struct MountOptions {
    /// User namespace whose mapping the mount takes; none for the host's ids.
    pub idmap: Option<OwnedFd>,
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerStoreError {
    /// No such layer or root filesystem.
    #[error("{what} {name} does not exist")]
    NotFound {
        /// `layer`, `root filesystem` or `checkpoint`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Still used by a layer or root filesystem above it.
    #[error("layer {chain} is in use")]
    InUse {
        /// The layer.
        chain: ChainId,
    },
    /// This store cannot do that.
    #[error("the {driver} storage driver does not support {what}")]
    Unsupported {
        /// The store.
        driver: &'static str,
        /// What was asked.
        what: String,
    },
    /// The tar stream is not acceptable.
    #[error("layer {diff_id} cannot be applied")]
    Apply {
        /// The layer.
        diff_id: Digest,
        /// Why.
        #[source]
        source: crate::apply::ApplyError,
    },
    /// The file system refused.
    #[error("{doing}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The store's records cannot be read or written.
    #[error("records of the storage driver cannot be used")]
    Database(#[from] nexcage_sqlite::DatabaseError),
}

impl LayerStoreError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InUse { .. } => true,
            Self::Database(e) => e.is_retryable(),
            Self::Io { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull
                    | std::io::ErrorKind::ResourceBusy
                    | std::io::ErrorKind::TimedOut
                    | std::io::ErrorKind::Interrupted
            ),
            Self::NotFound { .. } | Self::Unsupported { .. } | Self::Apply { .. } => false,
        }
    }
}

/// Keeps unpacked layers, and makes root filesystems out of them.
///
/// Layers are named by chain id and form a tree. A root filesystem is a writable view of
/// one layer and all below it. Implementations: `nexcage-overlay`, `nexcage-zfs`.
///
/// Every method may be called again after a crash between any two of its steps, and then
/// finishes or cleans up what the first call began. Layer methods are called by one pull
/// at a time per chain id (the image store sees to that); root filesystem methods by one
/// caller at a time per id.
#[async_trait]
pub trait LayerStore: Send + Sync + fmt::Debug {
    /// The driver's name as in the configuration: `overlay`, `zfs`.
    fn driver(&self) -> &'static str;

    /// Proves that the store can work: its file system is there and writable.
    async fn check(&self) -> Result<(), LayerStoreError>;

    /// A directory that always exists on the file system that holds the data; reported to kubelet.
    fn mountpoint(&self) -> &Utf8Path;

    /// The layer, if it is there in full.
    async fn layer(&self, chain: &ChainId) -> Result<Option<StoredLayer>, LayerStoreError>;

    /// All complete layers.
    async fn layers(&self) -> Result<Vec<StoredLayer>, LayerStoreError>;

    /// Unpacks `layer` on top of `parent` (`None`: it is the lowest) as `chain`. If the layer is there
    /// already, says so without reading the tar. Nothing half-unpacked is ever visible.
    async fn apply(
        &self,
        parent: Option<&ChainId>,
        chain: &ChainId,
        layer: &SpooledLayer,
    ) -> Result<StoredLayer, LayerStoreError>;

    /// Removes a layer. `Ok` if there is none; [`LayerStoreError::InUse`] if something stands on it. What it takes on the
    /// disk may be there until [`reclaim`](Self::reclaim): layers that go together may go by less work than one by one.
    async fn remove_layer(&self, chain: &ChainId) -> Result<(), LayerStoreError>;

    /// Takes from the disk what these removed layers have left there. What is still in use is tried again later without being
    /// asked for, and so is what is not asked for.
    async fn reclaim(&self, removed: &[ChainId]);

    /// Makes a writable root filesystem on `top`. `Ok` if it exists already on the same layer.
    async fn create_rootfs(
        &self,
        id: &RootfsId,
        top: &ChainId,
        options: &RootfsOptions,
    ) -> Result<(), LayerStoreError>;

    /// Mounts it and says where; `Ok` if it is mounted already. Not read-only, even for a
    /// container whose root is: the OCI runtime sees to that.
    async fn mount_rootfs(
        &self,
        id: &RootfsId,
        options: MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError>;

    /// Unmounts it. `Ok` if it is not mounted or does not exist.
    async fn unmount_rootfs(&self, id: &RootfsId) -> Result<(), LayerStoreError>;

    /// Unmounts and removes it with everything written to it. `Ok` if it does not exist.
    async fn remove_rootfs(&self, id: &RootfsId) -> Result<(), LayerStoreError>;

    /// All root filesystems, for the reconciler.
    async fn rootfses(&self) -> Result<Vec<RootfsId>, LayerStoreError>;

    /// What was written to it: its writable layer alone.
    async fn rootfs_usage(&self, id: &RootfsId) -> Result<Usage, LayerStoreError>;

    /// Mounts a read-only view of `top` under the name `id` and says where (image volumes).
    /// Undone by [`remove_rootfs`](Self::remove_rootfs).
    async fn mount_readonly(
        &self,
        id: &RootfsId,
        top: &ChainId,
        options: MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError>;

    /// Takes away what the store has made for itself outside of its directory, once it keeps no layers and no root filesystems
    /// any more. It cannot be used afterwards.
    async fn dismantle(&self) -> Result<(), LayerStoreError> {
        Ok(())
    }

    /// Space all layers take.
    async fn layers_usage(&self) -> Result<Usage, LayerStoreError>;

    /// Space all writable layers take.
    async fn rootfses_usage(&self) -> Result<Usage, LayerStoreError>;

    /// Keeps the state of a root filesystem as it is at this moment: all of it or nothing, also while it
    /// is mounted and written to. The oldest checkpoints beyond what the store keeps are removed.
    ///
    /// # Errors
    ///
    /// [`LayerStoreError::Unsupported`] from a store without checkpoints, as from the methods below;
    /// [`LayerStoreError::NotFound`] if there is no such root filesystem, or it has no writable layer.
    async fn checkpoint_rootfs(&self, _id: &RootfsId) -> Result<Checkpoint, LayerStoreError> {
        Err(self.no_checkpoints())
    }

    /// The checkpoints of a root filesystem, in the order in which they were made.
    async fn checkpoints(&self, _id: &RootfsId) -> Result<Vec<Checkpoint>, LayerStoreError> {
        Err(self.no_checkpoints())
    }

    /// Takes a root filesystem back to a checkpoint, the latest if `name` is `None`. No process may use
    /// it any more. Checkpoints stay, the later ones too. A crash leaves it as it was or as it shall be.
    async fn restore_rootfs(
        &self,
        _id: &RootfsId,
        _name: Option<&str>,
    ) -> Result<Checkpoint, LayerStoreError> {
        Err(self.no_checkpoints())
    }

    /// Removes a checkpoint. [`LayerStoreError::NotFound`] if there is none of that name.
    async fn remove_checkpoint(&self, _id: &RootfsId, _name: &str) -> Result<(), LayerStoreError> {
        Err(self.no_checkpoints())
    }

    /// The answer of a store without checkpoints.
    #[doc(hidden)]
    fn no_checkpoints(&self) -> LayerStoreError {
        LayerStoreError::Unsupported {
            driver: self.driver(),
            what: "checkpoints; ZFS has them".to_owned(),
        }
    }
}
