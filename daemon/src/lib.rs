//! nexcage: a Kubernetes container runtime whose pods are LXC containers.
//!
//! One binary with two faces. `nexcage daemon` serves CRI v1 on a Unix socket; every
//! other subcommand is a client of that socket (`cli`) or runs without one (`config`,
//! the hidden helpers that LXC and systemd call back).
//!
//! # The daemon, from the socket inwards
//!
//! * `serve` starts and stops it: configuration, logging, the socket, readiness, signals.
//! * `cri` is the edge: gRPC services that turn prost messages into domain types
//!   (`cri::convert`, one exhaustive destructuring per message, so no field is ever ignored by
//!   accident) and errors into gRPC codes. Nothing below it sees prost.
//! * `runtime::Runtime` holds what everything shares: configuration, backends, CNI, the OCI runtime, images, the
//!   [`store`](crate) and the inventory.
//! * `pods` and `containers` are the two state machines, one file per transition.
//! * `apparmor` loads the profiles that both run under.
//! * `store` is SQLite; `inventory` is the same in memory, for lists that never wait for a disk.
//! * `reconcile` makes the database and the machine agree, after a start and from time to time.
//!
//! # Tasks
//!
//! One task per living sandbox waits on the pidfd of its init (`pods::watch`), one per
//! container on the pidfd of its conmon (`containers::watch`). Requests that change
//! something run in tasks of their own, so that a client that hangs up cannot leave half a
//! change behind. All are tracked by `Runtime::tasks`, which the shutdown waits for.
//!
//! # Invariants
//!
//! 1. A record is written before anything is made on the machine, and deleted after everything
//!    is gone. All names on the machine follow from the id in the record.
//! 2. One lock per pod (`Pod::lock`) serialises what changes it; no lock is global, and none is held while a container is given time
//!    to end.
//! 3. What the inventory says was committed to SQLite first.
//!
//! Start reading at `pods::run`, the thread through the whole house.

mod admin;
mod apparmor;
mod cli;
mod containers;
mod cri;
mod ended;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod ids;
mod inflight;
mod inventory;
mod node;
mod pidfd;
mod pods;
mod reconcile;
mod runtime;
mod serve;
mod stats;
mod store;

#[doc(hidden)]
pub use cli::command;
pub use cli::main;
