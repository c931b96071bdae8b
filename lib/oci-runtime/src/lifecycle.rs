//! A created container's way to its end.

use camino::Utf8Path;
use oci_spec::runtime::LinuxResources;

use crate::OciRuntime;
use crate::error::OciError;

/// Where a container is in its life (OCI runtime specification, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waits for `start`.
    Created,
    /// Runs.
    Running,
    /// Its first process has ended.
    Stopped,
    /// Frozen.
    Paused,
}

/// What crun says of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Where it is.
    pub status: Status,
    /// Its first process, as the host numbers it; 0 when stopped.
    pub pid: u32,
}

impl OciRuntime {
    /// Starts a created container.
    pub async fn start(&self, id: &str) -> Result<(), OciError> {
        todo!("{id}")
    }

    /// Where a container is; [`OciError::NotFound`] if there is none.
    pub async fn state(&self, id: &str) -> Result<State, OciError> {
        todo!("{id}")
    }

    /// Sends a signal to the first process, or to `all` processes of the container. `Ok` when it is already gone.
    pub async fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), OciError> {
        todo!("{id} {signal} {all}")
    }

    /// Removes a stopped container; with `force` one in any state, with its conmon. `Ok` when there is none.
    pub async fn delete(&self, id: &str, force: bool) -> Result<(), OciError> {
        todo!("{id} {force}")
    }

    /// Sets limits.
    pub async fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), OciError> {
        todo!("{id} {resources:?}")
    }

    /// Ids of all containers below `root`.
    pub async fn list(&self) -> Result<Vec<String>, OciError> {
        todo!()
    }

    /// Makes conmon open the log anew after it was renamed; returns when the new file exists.
    pub async fn reopen_log(
        &self,
        id: &str,
        bundle: &Utf8Path,
        log_path: &Utf8Path,
    ) -> Result<(), OciError> {
        todo!("{id} {bundle} {log_path}")
    }
}
