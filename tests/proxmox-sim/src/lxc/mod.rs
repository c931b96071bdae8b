//! Real LXC, driven as Proxmox drives it.

mod cgroup;
mod command;
mod config;

pub use cgroup::Hierarchies;
pub use cgroup::Usage;
pub use command::State;
pub use command::active;
pub use command::init_pid;
pub use command::limiting_cgroup;
pub use command::state;
pub use config::Facts;
pub use config::LxcConfig;
pub use config::cpu_quota;
pub use config::lxc_config;
pub use config::memory_limits;
