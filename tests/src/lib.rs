//! System tests: the real daemon on a real machine, driven by crictl, critest and a raw gRPC client.
//!
//! A test starts with a [`Machine`]: directories, a CNI network, a name prefix for LXC and a
//! configuration file that belong to this test alone, so that it can run beside a nexcage that
//! does real work, and beside what an earlier test may have left. On the machine it starts a
//! [`Daemon`], kills it, starts it again, and talks to it through [`Crictl`] or a raw [`Client`](client::Client).
//! Images come from a local registry that `cargo xtask test system` starts; [`image`] has their names.
//!
//! A [`Proxmox`] is a simulated node, for tests, and for the benchmarks, which have no machine.
//!
//! Everything a machine makes carries its name, `nxt-<6 hex digits>`: in a path, an interface, an LXC
//! container. That is how [`leak`] finds what a test has left behind, and how [`sweep`] removes what
//! a test that was killed could not. A machine's owner holds a lock on a file in it; a machine
//! whose lock is free has no owner and is swept by the next one that starts.
//!
//! Invariants:
//!
//! * A test never touches what does not carry the name of its machine or an id it got.
//! * When a machine is dropped, nothing of it is left, whether the test passed or not. The log of the
//!   daemon is printed first if the test failed.
//! * Nothing waits by sleeping for a fixed time: [`wait::until`] looks at what is waited for.
//!
//! The test targets are in `tests/tests/`; start with `lifecycle.rs`.

pub mod churn;
pub mod client;
mod crictl;
pub mod critest;
mod daemon;
mod foreign;
pub mod image;
pub mod known_failures;
pub mod leak;
mod machine;
pub mod process;
mod proxmox;
pub mod request;
pub mod spec;
mod sweep;
pub mod tools;
pub mod users;
pub mod wait;
mod workload;

pub use crictl::Crictl;
pub use daemon::Daemon;
pub use foreign::Foreign;
pub use machine::Machine;
pub use proxmox::Place;
pub use proxmox::Proxmox;
pub use proxmox::Task;
pub use workload::Pod;
