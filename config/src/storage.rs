//! Where data is kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rootfs::RootfsProperties;
use crate::value::AbsolutePath;

/// Where data is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// What must survive a reboot: the database, images, root filesystems. Two daemons never share it.
    pub root: AbsolutePath,
    /// What a reboot may clear: sockets, bundles, files of running pods; on tmpfs. At most 17 bytes, because
    /// sockets are made below it. Two daemons never share it.
    pub run_dir: AbsolutePath,
    /// What keeps layers and root filesystems.
    pub driver: StorageDriver,
    /// The `zfs` driver.
    pub zfs: Zfs,
    /// What the root filesystems of containers shall be, unless their pod or its runtime handler says otherwise.
    ///
    /// The `overlay` driver has none of these properties and refuses containers that shall have one.
    pub rootfs: RootfsProperties,
    /// What one layer of an image may unpack to; a layer beyond that is refused.
    pub layer_limits: LayerLimits,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            root: AbsolutePath::constant("/var/lib/nexcage"),
            run_dir: AbsolutePath::constant("/run/nexcage"),
            driver: StorageDriver::Auto,
            zfs: Zfs::default(),
            rootfs: RootfsProperties::default(),
            layer_limits: LayerLimits::default(),
        }
    }
}

/// What keeps layers and root filesystems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StorageDriver {
    /// `zfs` if the dataset `storage.zfs.dataset` exists, else `overlay`. What was chosen once stays: a pool that is not
    /// imported is an error then.
    Auto,
    /// Directories joined by overlayfs.
    Overlay,
    /// ZFS datasets, snapshots and clones.
    Zfs,
}

/// The `zfs` driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Zfs {
    /// The dataset below which everything lies: `pool/name`. nexcage never makes it, so that it never takes a pool that
    /// was not meant for it: `zfs create -o canmount=off -o mountpoint=none rpool/nexcage`.
    pub dataset: String,
    /// Checkpoints kept of one container; the oldest go first. 0: all.
    pub max_checkpoints: u32,
}

impl Default for Zfs {
    fn default() -> Self {
        Self {
            dataset: "rpool/nexcage".to_owned(),
            max_checkpoints: 16,
        }
    }
}

/// What one layer may unpack to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LayerLimits {
    /// Bytes of the decompressed tar stream, and so of what is written.
    #[schemars(range(min = 1))]
    pub max_bytes: u64,
    /// Files, directories and all else in it.
    #[schemars(range(min = 1))]
    pub max_entries: u64,
    /// Components of one path.
    #[schemars(range(min = 1, max = 2048))]
    pub max_depth: u32,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 30,
            max_entries: 4_000_000,
            max_depth: 256,
        }
    }
}
