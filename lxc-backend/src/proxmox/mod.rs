//! Pods as containers of Proxmox VE.

mod audit;
mod backend;
mod check;
pub(crate) mod conf;
mod confs;
mod ct;
mod fake;
mod features;
mod hook;
mod lock;
mod node;
mod options;
mod pmxcfs;
mod remove;
mod start;
mod subids;
mod vmid;

pub use backend::ProxmoxBackend;
pub use fake::FakePmxcfs;
pub use hook::post_stop;
pub use options::ProxmoxOptions;
pub use options::StartMode;
pub use pmxcfs::Pmxcfs;
