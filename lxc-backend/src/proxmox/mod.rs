//! Pods as containers of Proxmox VE.

mod backend;
pub(crate) mod conf;
mod hook;
mod node;
mod options;

pub use backend::ProxmoxBackend;
pub use hook::post_stop;
pub use options::ProxmoxOptions;
pub use options::StartMode;
