//! Layers, root filesystems and checkpoints on OpenZFS.
//!
//! # In the pool
//!
//! ```text
//! <dataset>                        given by the administrator; carries nexcage:store, the id of the one store that owns it
//! <dataset>/images/<n>             layers, in order: a snapshot after each
//!   @<16 digits of the chain id>   a layer with everything below it; nexcage:chain is the chain id
//! <dataset>/containers/<id>        a root filesystem: a clone of its layer's snapshot
//!   @checkpoint-<unix time>        a checkpoint
//! <dataset>/containers/<id>:<n>    a later generation of it: see `checkpoints`
//! <dataset>/deleted/...            what nobody knows any more and something still stands on or uses
//! <dataset>/fs                     empty; its mount stands for all of them, see LayerStore::mountpoint
//! ```
//!
//! and on the host's own file system:
//!
//! ```text
//! <root>/zfs.db            the records: which layer is which snapshot, which root filesystem stands on which
//! <root>/zfs/              where <dataset>/fs is mounted
//! <run>/rootfs/<id>/       a mounted root filesystem
//! <run>/mapped/<id>/       one that a user namespace sees; only these are reachable for users other than root
//! ```
//!
//! A layer that is put on the last one of a dataset goes on in that dataset; any other starts a new one, as a clone. So
//! images have about one dataset each, however many layers they have.
//!
//! # Whose things
//!
//! Everything made here carries `nexcage:role`, set on it and not inherited. What has no such tag is never touched: not
//! a dataset that has one of our names (that is refused by name), not a clone of one of our snapshots (what it stands on waits in
//! `deleted/`). Snapshots that others make of our datasets go with the dataset.
//!
//! # Order of things
//!
//! The records are the truth; the pool is listed as a whole only by [`ZfsStore::open`]. A record is written before what it names
//! is made, and deleted after that is gone. ZFS does each of its steps in full or not at all, and a snapshot, clone or rename is on the
//! disk when the command returns. So:
//!
//! * A layer: record `applying`; the dataset; the files; the snapshot, which takes everything written before to the disk; record `complete`.
//!   SQLite's commit is on the disk when it returns, too. So a layer that is `complete` has its snapshot after a power cut, and
//!   one that is not is undone: its dataset goes back to its last snapshot, or goes. If the pool has lost the snapshot nevertheless
//!   (`zpool import -F`, or somebody destroyed it), the layer is struck off and can be pulled again.
//! * A root filesystem: its record; the clone, made with all its properties at once. Without the other, each is swept.
//! * A removal: the record says so; what can be destroyed is; then the record goes. What is in use or has clones is renamed into `deleted/`,
//!   tried again by the chores, and at the latest after the next start. A layer waiting there is taken back if it is pulled again.
//!
//! # Mounts
//!
//! The host's mount table has one mount of ours, and those of root filesystems only between `mount_rootfs` and `unmount_rootfs`: kubelet's
//! cAdvisor starts a `zfs` for every ZFS mount that it finds at its start. Unpacking and counting inodes happen in mounts that are
//! in no table (`fsmount(2)`) and end with the descriptor.
//!
//! # Tasks
//!
//! Every method is a task of its own that runs to its end, even if the caller's future is dropped; dropping that of `apply` makes it
//! stop and clean up at its next read. One more task, owned by the store and aborted with it, does the chores. Datasets of layers are
//! changed under one lock, which is not held while a layer is unpacked. Every call of `zfs` and of the kernel has a deadline: on a suspended
//! pool both would wait for ever. A thread that waits in the kernel cannot be ended; [`LayerStore::check`](nexcage_image_store::LayerStore::check)
//! never leaves more than one behind.
//!
//! Start reading at [`ZfsStore`], then `layers`, `images` and `rootfs`; `zfs` drives the program, `kernel` mounts, `records` speaks with
//! the database, `recover` compares it with the pool.

mod checkpoints;
mod chores;
mod dismantle;
mod error;
mod health;
mod images;
mod kernel;
mod layers;
mod names;
mod open;
mod records;
mod recover;
mod rootfs;
mod store;
#[cfg(test)]
mod tests;
mod usage;
mod zfs;

pub use open::dataset_exists;
pub use open::dataset_room;
pub use store::ZfsOptions;
pub use store::ZfsStore;
