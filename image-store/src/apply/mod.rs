//! Unpacking a layer into a directory.
//!
//! A layer is a tar stream from a stranger, unpacked by root. `archive` reads its entries,
//! `path` says where they belong, `tree` finds or makes their directories, `writer` carries
//! them out, `remove` takes away, and `sys` holds the system calls that the others use.
//!
//! # Where entries go
//!
//! Into the bare directory of the layer ([`Whiteouts::Overlay`]), not through a mount: that
//! saves a mount and an unmount per layer and a lookup through all layers per file. But an entry
//! `lib/x` belongs into `usr/lib` if a layer below made `lib` a link to it, as it would if the file
//! had been made in a container; and a directory that an entry needs must not lose the owner and
//! mode it has below. So names of directories that the layer does not have itself are looked up in
//! the layers below, with the rules of overlayfs. For most entries that costs nothing: their
//! directory is that of the entry before, or the layer has it, and one `openat2` shows that.
//!
//! For stores that keep the merged tree ([`Whiteouts::Remove`]) the same code runs without
//! layers below.
//!
//! # What a hostile layer cannot do
//!
//! * Write outside the root. Directories are opened by `openat2` with `RESOLVE_BENEATH` and
//!   `RESOLVE_NO_SYMLINKS`, or one component at a time with `O_NOFOLLOW`; links are followed here, not
//!   by the kernel, and `..` stops at the root. A name with `..` is refused.
//! * Speak to overlayfs: attributes in `trusted.` are dropped, character device 0/0 is refused.
//! * Use memory without bound: long names, PAX headers and sparse maps have limits, times of
//!   directories are put right on leaving them instead of being collected. An entry costs some 16
//!   bytes of memory, and entries are limited.
//! * Use disk or time without bound: see [`ApplyLimits`]; links and steps of one path are limited.
//!
//! # What differs from other unpackers
//!
//! As the OCI image spec wants it, whiteouts speak of lower layers alone, whatever the order of
//! entries. A hard link to a file of a lower layer copies it up. Extended attributes other than
//! `user.`, `security.capability` and POSIX ACLs are dropped.

mod archive;
mod error;
mod path;
mod pax;
mod remove;
mod sparse;
mod sys;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};

pub use error::ApplyError;

use archive::Archive;
use tree::Tree;
use writer::Writer;

/// Limits, so that a hostile layer cannot fill the machine.
#[derive(Clone, Debug)]
pub struct ApplyLimits {
    /// Entries in one layer.
    pub max_entries: u64,
    /// Bytes written by one layer; holes of sparse files count.
    pub max_bytes: u64,
    /// Depth of one path in components. At most some hundreds: removing a tree needs an open
    /// directory per level.
    pub max_depth: usize,
}

impl Default for ApplyLimits {
    /// Two million entries, 64 GiB, 256 levels: some times what the largest known images have.
    fn default() -> Self {
        Self {
            max_entries: 2_000_000,
            max_bytes: 64 << 30,
            max_depth: 256,
        }
    }
}

/// How whiteouts of the layer are stored in the target.
#[derive(Clone, Copy, Debug)]
pub enum Whiteouts<'a> {
    /// As overlayfs wants them: character device 0/0 and `trusted.overlay.opaque`. Needs
    /// `CAP_SYS_ADMIN` for a layer with opaque directories.
    Overlay {
        /// The directories of the layers below, uppermost first.
        lowers: &'a [OwnedFd],
    },
    /// The target already holds the layers below: remove what they name.
    Remove,
}

/// What was written. Something that a later entry of the same layer replaces counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Bytes of file content, holes included.
    pub bytes: u64,
    /// Bytes of disk for files and directories.
    pub allocated: u64,
    /// Files, directories, links, devices and whiteouts; further hard links do not count.
    pub inodes: u64,
}

/// Unpacks the tar stream into the directory `root`. Blocking; as root, because layers have owners.
///
/// `root` needs the owner and mode that the image's root directory shall have if the layer
/// does not say: those of the layer below.
///
/// # Errors
///
/// See [`ApplyError`]. What was unpacked before the error is still there.
pub fn apply_layer(
    root: BorrowedFd<'_>,
    tar: &mut dyn Read,
    whiteouts: Whiteouts<'_>,
    limits: &ApplyLimits,
) -> Result<Applied, ApplyError> {
    let (lowers, overlay): (&[OwnedFd], bool) = match whiteouts {
        Whiteouts::Overlay { lowers } => (lowers, true),
        Whiteouts::Remove => (&[], false),
    };
    let mut writer = Writer::new(Tree::new(root, lowers, overlay, limits.max_depth), limits);
    let mut archive = Archive::new(tar);
    let mut entries = 0;
    while let Some(entry) = archive.next()? {
        entries += 1;
        if entries > limits.max_entries {
            return Err(ApplyError::Limit {
                entry: error::shown(&entry.path),
                limit: limits.max_entries,
                what: "entries",
            });
        }
        writer.apply(&entry, &mut archive)?;
    }
    writer.finish()
}
