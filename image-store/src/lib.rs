//! Images.

pub mod apply;
mod digest;
mod layer_store;

pub use digest::ChainId;
pub use digest::Digest;
pub use digest::DigestError;
pub use layer_store::LayerStore;
pub use layer_store::LayerStoreError;
pub use layer_store::MountOptions;
pub use layer_store::RootfsId;
pub use layer_store::RootfsOptions;
pub use layer_store::SpooledLayer;
pub use layer_store::StoredLayer;
pub use layer_store::Usage;
