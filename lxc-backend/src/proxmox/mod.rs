//! Pods as containers of Proxmox VE, which lists, measures and stops them, whoever started them.
//!
//! To Proxmox a container is a file `<vmid>.conf` in its cluster file system (`pmxcfs`) and LXC's command socket of that name. `conf` reads,
//! writes and compares such files, and is pure; `confs` says whose they are and changes them under Proxmox's own `lock`; `vmid`
//! reserves numbers; `units` is what systemd knows of containers that Proxmox started; `start`, `remove`, `audit` and `check` are the
//! backend's life; `hook` is what LXC calls when a container has stopped.
//!
//! Invariants:
//!
//! * A container is a sandbox's only if its directory has the sandbox's marker, and its configuration is absent, empty, or includes the
//!   file that is made for this sandbox and this number alone. Everything else is never touched.
//! * The marker is the first thing made and the last one removed, so a crash at any step leaves what is found by it.
//! * That file is there exactly while the container runs: nobody can start one whose pod is over.
//! * A cluster file system that is not mounted, or has no quorum, never ends a pod that runs.
//!
//! The reasons are in `docs/adr/0014-pods-as-proxmox-containers.md`. Start reading at [`ProxmoxBackend`], then `start`.

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
mod numbers;
mod options;
mod pmxcfs;
mod remove;
mod start;
mod subids;
mod units;
mod vmid;

pub use backend::ProxmoxBackend;
pub use fake::FakePmxcfs;
pub use features::FeatureError;
pub use features::Features;
pub use features::Version;
pub use hook::post_stop;
pub use options::ProxmoxOptions;
pub use options::StartMode;
pub use pmxcfs::Pmxcfs;
pub use subids::check as check_subids;
