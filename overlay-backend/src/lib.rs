//! Layers and root filesystems on overlayfs.

mod store;

pub use store::OverlayOptions;
pub use store::OverlayStore;
