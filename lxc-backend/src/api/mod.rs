//! What nexcage asks of the Proxmox VE API.
//!
//! [`Pve`] is the seam: the few verbs that pods need, of one node. [`ApiClient`] is the real one; nothing else in nexcage knows paths or
//! parameters of the API. From the outside in:
//!
//! * `client`: the verbs. Each change of a container waits for its turn (`turns`), becomes a task of Proxmox (`task`) and is awaited.
//! * `server`: one request with its token, repeated where that cannot do anything twice. It is what the crate proxmox-api sends its
//!   requests by; that crate knows paths, parameters and types (docs/adr/0015).
//! * `answer`, `map`: from bytes and from the crate's types to ours, pure.
//! * `transport`, `trust`, `token`: connections, TLS and authorization.
//!
//! There are no tasks of ours but one for each open connection, which ends with it. Every wait has an end; whoever drops a call closes
//! its connection and leaves its queue, while a task of Proxmox goes on.

mod answer;
mod client;
mod error;
pub(crate) mod fuzz;
mod map;
mod server;
mod task;
#[cfg(test)]
mod tests;
mod token;
mod transport;
mod trust;
mod turns;
mod verbs;

pub use client::ApiClient;
pub use client::ApiOptions;
pub use error::PveError;
pub use verbs::ClusterStatus;
pub use verbs::CtStatus;
pub use verbs::CtSummary;
pub use verbs::Permissions;
pub use verbs::Pve;
