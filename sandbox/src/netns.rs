//! Pinning a pod's network namespace to a path, as `ip netns` does.

use camino::{Utf8Path, Utf8PathBuf};

/// A network namespace could not be pinned or unpinned.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct NetnsError {
    /// What was being done.
    pub doing: &'static str,
    /// Where.
    pub path: Utf8PathBuf,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

/// Binds the network namespace of process `pid` to `path`, whose directory is made and mounted with shared propagation
/// if it is not. `Ok` when it is pinned there already; another namespace found there is replaced.
pub async fn pin_netns(pid: u32, path: &Utf8Path) -> Result<(), NetnsError> {
    todo!("{pid} {path}")
}

/// Takes the pin away; the namespace goes with the last process in it. `Ok` when there is none.
pub async fn unpin_netns(path: &Utf8Path) -> Result<(), NetnsError> {
    todo!("{path}")
}
