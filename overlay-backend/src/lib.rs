//! Layers and root filesystems on overlayfs: the storage driver that needs nothing but a
//! directory.
//!
//! # On disk
//!
//! ```text
//! <root>/overlay.db      the records: which layer is in which directory, which root filesystem stands on which
//! <root>/l/12/           a layer, whiteouts as overlayfs wants them; names are short and never used twice
//! <root>/c/<id>/upper/   what was written to a root filesystem
//! <root>/c/<id>/work/    overlayfs's own
//! <root>/trash/          what is being deleted
//! <root>/empty/          the layer below the lowest
//! <run>/rootfs/<id>/     a mounted root filesystem
//! <run>/mapped/<id>/     one that a user namespace sees; only these are reachable for users other than root
//! <run>/idmap/           empty but for moments
//! ```
//!
//! # Order of things
//!
//! A record is written before what it names is made, and deleted after that is gone. So
//! [`OverlayStore::open`] can put right whatever a crash left: what has no record, or one that was not
//! finished, goes to the trash. Removing is one rename; a thread of its own, which the store owns and
//! ends, deletes the files.
//!
//! A layer is `applying` while it is unpacked and `written` from then on. The same thread then
//! flushes the file system once and calls it `complete`. Both count as there, with one difference:
//! the page cache outlives the daemon, but not the machine, so at the first start after a boot,
//! what is only `written` is dropped, with the root filesystems on it. A pull never waits for the
//! disk, and no layer is ever listed that a power cut tore. Who keeps records of images must
//! therefore ask at start whether their layers are still there.
//!
//! # Tasks
//!
//! Every method does its work in one blocking task and may be called again at any time. Dropping the
//! future of `apply` makes that task stop and clean up at its next read.
//!
//! Start reading at [`OverlayStore`], then `layers` and `rootfs`; `mount` speaks with
//! the kernel, `records` with the database.

mod chores;
mod error;
mod layers;
mod mount;
mod records;
mod rootfs;
mod store;
mod sweep;
mod usage;

pub use store::OverlayOptions;
pub use store::OverlayStore;
