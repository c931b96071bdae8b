//! Pod networks: calling CNI plugins (CNI specification 1.1.0).
//!
//! A network is a file in the configuration directory; [`Cni`] runs its plugins one after the other for an
//! [`Attachment`], which is one interface in one pod's network namespace. Versions 0.3.0 to 1.1.0 of the
//! protocol are spoken; which one is settled between the file and what each plugin says of itself.
//!
//! What is done is written down first. Before the first plugin of an ADD runs, a file in the cache directory
//! says what is about to be attached, with the configuration in use; it gets the result afterwards and goes
//! away when DEL is done. So DEL does what ADD did even if the configuration has changed or is gone, a
//! crash in the middle of ADD is undone by DEL, and an attachment without such a file has nothing to undo.
//!
//! There are no tasks, no channels and no background work. Nothing is kept in memory but what each plugin
//! answered to VERSION, for as long as its file is the same; the configuration directory is read at each call, so
//! a network plugin may install itself at any time. Dropping a call's future kills the plugin that
//! runs; what it had begun is still in the cache.
//!
//! Invariants: one caller at a time per attachment (the pod's lock sees to that); a cache file appears and
//! changes as a whole; no plugin outlives its deadline.
//!
//! Start reading at [`Cni::add`].

mod attachment;
mod cache;
mod cni;
mod error;
mod execution;
#[doc(hidden)]
pub mod fuzz;
mod network;
mod plugin;
mod result;
mod version;

pub use attachment::Attachment;
pub use cache::Cached;
pub use cni::Attached;
pub use cni::Cni;
pub use cni::CniOptions;
pub use cni::NetworkStatus;
pub use error::CniError;
pub use error::Verb;
