//! How a container ended.

use crate::OciRuntime;
use crate::error::OciError;

/// What conmon left when the container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// Exit code; 128 and the signal's number if a signal ended it.
    pub exit_code: i32,
    /// When.
    pub finished_at: jiff::Timestamp,
    /// The kernel killed one of its processes for lack of memory.
    pub oom_killed: bool,
}

impl OciRuntime {
    /// How the container ended; `None` while it runs, or when its conmon was killed. Two small files are read: quick
    /// enough for an async thread.
    pub fn exit_record(&self, id: &str) -> std::io::Result<Option<ExitRecord>> {
        todo!("{id}")
    }

    /// Removes what `exit_record` reads and all else that conmon left. `Ok` when there is nothing.
    pub async fn forget(&self, id: &str) -> Result<(), OciError> {
        todo!("{id}")
    }
}
