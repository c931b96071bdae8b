//! Pinning a pod's network namespace to a path, as `ip netns` does (ip-netns(8)).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount,
};

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
    pub source: io::Error,
}

/// Binds the network namespace of process `pid` to `path`, whose directory is made and mounted with shared propagation
/// if it is not (other mount namespaces then see the pin appear and go). `Ok` when it is pinned there already; another
/// namespace found there is replaced.
///
/// # Errors
///
/// [`NetnsError`]; nothing is pinned then.
pub async fn pin_netns(pid: u32, path: &Utf8Path) -> Result<(), NetnsError> {
    let path = path.to_owned();
    blocking("pin a network namespace to", path.clone(), move || {
        pin(pid, &path)
    })
    .await
}

/// Takes the pin away; the namespace goes with the last process in it. `Ok` when there is none.
///
/// # Errors
///
/// [`NetnsError`].
pub async fn unpin_netns(path: &Utf8Path) -> Result<(), NetnsError> {
    let path = path.to_owned();
    blocking("remove the network namespace at", path.clone(), move || {
        unpin(&path)
    })
    .await
}

async fn blocking(
    doing: &'static str,
    path: Utf8PathBuf,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), NetnsError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::from)
        .flatten()
        .map_err(|source| NetnsError {
            doing,
            path,
            source,
        })
}

fn pin(pid: u32, path: &Utf8Path) -> io::Result<()> {
    // Opened first: the descriptor goes on meaning this namespace when the process ends.
    pin_file(&File::open(format!("/proc/{pid}/ns/net"))?, path)
}

/// Binds an open namespace to `path`.
pub(crate) fn pin_file(namespace: &File, path: &Utf8Path) -> io::Result<()> {
    if is_pinned(namespace, path)? {
        return Ok(());
    }
    unpin(path)?;
    if let Some(directory) = path.parent() {
        share(directory)?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)?;
    let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    if let Err(error) = mount_bind(source.as_str(), path.as_std_path()) {
        let _ = std::fs::remove_file(path);
        return Err(error.into());
    }
    Ok(())
}

fn is_pinned(namespace: &File, path: &Utf8Path) -> io::Result<bool> {
    let there = match File::open(path) {
        Ok(there) => there,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let identity = |file: &File| file.metadata().map(|m| (m.dev(), m.ino()));
    Ok(identity(namespace)? == identity(&there)?)
}

/// Makes `directory` a mount point with shared propagation.
fn share(directory: &Utf8Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    // Two callers at once would mount it twice; `ip netns` takes the same lock.
    let lock = File::open(directory)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let make_shared = || {
        mount_change(
            directory.as_std_path(),
            MountPropagationFlags::SHARED | MountPropagationFlags::REC,
        )
    };
    match make_shared() {
        // Not a mount point yet.
        Err(Errno::INVAL) => {
            mount_bind_recursive(directory.as_std_path(), directory.as_std_path())?;
            Ok(make_shared()?)
        }
        other => Ok(other?),
    }
}

fn unpin(path: &Utf8Path) -> io::Result<()> {
    loop {
        // Lazily: somebody may have it open.
        match unmount(
            path.as_std_path(),
            UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        ) {
            // Pinned more than once: again.
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(e) => return Err(e.into()),
        }
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
