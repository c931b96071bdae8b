//! Pods as containers of Proxmox VE.

mod backend;
mod hook;
mod options;

pub use backend::ProxmoxBackend;
pub use hook::post_stop;
pub use options::ProxmoxOptions;
pub use options::StartMode;
