//! Pods as plain LXC containers, which `lxc-ls` and every tool that knows LXC show.

mod backend;

pub use backend::LxcBackend;
