//! The root filesystem that all sandboxes share.

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::Program;

/// The tree could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct RootfsError {
    /// What was being done.
    pub doing: &'static str,
    /// Where.
    pub path: Utf8PathBuf,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

/// Makes the read-only tree at `dir` (catatonit and mount points), or makes it again when catatonit changed. Sandboxes
/// that run keep the old tree.
pub async fn ensure_rootfs(dir: &Utf8Path, catatonit: &Program) -> Result<(), RootfsError> {
    todo!("{dir} {catatonit}")
}
