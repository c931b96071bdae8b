//! The whole simulator: nexcage's own client against its API, `pct` with real LXC, misbehaviour, restarts.
//!
//! Needs root, `/dev/fuse`, and for some tests LXC and catatonit. Each test has a simulator of its own, and ends by proving that nothing of it is
//! left. Numbers of containers differ from test to test, since Proxmox's cgroups are named after them alone.
#![allow(clippy::unwrap_used, reason = "tests")]

mod api;
mod containers;
mod house;
mod misbehaviour;
mod pmxcfs;
mod restart;
mod rights;
