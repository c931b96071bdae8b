//! What nexcage asks of the Proxmox VE API.
//!
//! [`Pve`] is the seam: the few verbs that pods need, of one node. Nothing else in nexcage knows paths or parameters of the API.

mod error;
mod verbs;

pub use error::PveError;
pub use verbs::ClusterStatus;
pub use verbs::CtStatus;
pub use verbs::CtSummary;
pub use verbs::Permissions;
pub use verbs::Pve;
