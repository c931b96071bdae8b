//! Unpacking a layer into a directory.

use std::os::fd::BorrowedFd;

/// Limits, so that a hostile layer cannot fill the machine.
#[derive(Clone, Debug)]
pub struct ApplyLimits {
    /// Entries in one layer.
    pub max_entries: u64,
    /// Bytes written by one layer.
    pub max_bytes: u64,
    /// Depth of one path.
    pub max_depth: usize,
}

/// How whiteouts of the layer are stored in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// As overlayfs wants them: character device 0/0 and `trusted.overlay.opaque`.
    Overlay,
    /// The target already holds the layers below: remove what they name.
    Remove,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Bytes of file content.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Placeholder until the applier lands.
    #[error("not yet")]
    NotYet,
}

/// Unpacks the tar stream into the directory `root`. Blocking.
pub fn apply_layer(
    _root: BorrowedFd<'_>,
    _tar: &mut dyn std::io::Read,
    _whiteouts: Whiteouts,
    _limits: &ApplyLimits,
) -> Result<Applied, ApplyError> {
    Err(ApplyError::NotYet)
}
