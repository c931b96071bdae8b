//! Where data is kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// What one layer of an image may unpack to; a layer beyond that is refused.
    pub layer_limits: LayerLimits,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            root: AbsolutePath::constant("/var/lib/nexcage"),
            run_dir: AbsolutePath::constant("/run/nexcage"),
            driver: StorageDriver::Auto,
            layer_limits: LayerLimits::default(),
        }
    }
}

/// What keeps layers and root filesystems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StorageDriver {
    /// The best that works on `storage.root`.
    Auto,
    /// Directories joined by overlayfs.
    Overlay,
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
