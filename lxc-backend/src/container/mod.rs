//! What is the same for every LXC container that is the shell of a pod, whoever else shows it: its LXC configuration, its
//! directory, its start in the pod's cgroup, its end, and what LXC leaves behind.
//!
//! Start reading at [`Engine`].

mod check;
mod config;
mod directory;
mod engine;
mod include;
mod log;
mod options;
mod profile;

pub(crate) use check::check;
pub(crate) use config::config;
pub(crate) use directory::Directory;
pub use directory::marked_as;
pub(crate) use directory::remove_if_empty;
pub(crate) use engine::Engine;
pub(crate) use engine::blocking;
pub(crate) use engine::or_remove;
pub(crate) use include::include;
pub use options::LxcOptions;
