//! The cluster's file system, as far as containers' configurations are concerned.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};

use camino::{Utf8Path, Utf8PathBuf};

/// Proxmox's cluster file system, usually mounted at `/etc/pve`. All of it blocks.
///
/// Its rules, which [`FakePmxcfs`](crate::FakePmxcfs) has, too: a number belongs to one guest of one node only, so making another file of
/// that number fails with `AlreadyExists` anywhere in the cluster; and without quorum every change fails with `PermissionDenied`.
pub trait Pmxcfs: Send + Sync + fmt::Debug {
    /// Makes a new file with this text, at once. What was made is removed again if it cannot be written.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, `PermissionDenied`, and what else a file system says.
    fn create(&self, path: &Utf8Path, text: &str) -> io::Result<()>;

    /// What is in a file.
    ///
    /// # Errors
    ///
    /// `NotFound`, and what else a file system says.
    fn read(&self, path: &Utf8Path) -> io::Result<Vec<u8>>;

    /// Puts a new file with this text in the place of one that is there: readers see either.
    ///
    /// # Errors
    ///
    /// `PermissionDenied`, and what else a file system says.
    fn replace(&self, path: &Utf8Path, text: &str) -> io::Result<()>;

    /// Removes a file, and what an interrupted [`replace`](Self::replace) left of its successor. `Ok` if it is not there.
    ///
    /// # Errors
    ///
    /// `PermissionDenied`, and what else a file system says.
    fn remove(&self, path: &Utf8Path) -> io::Result<()>;
}

/// The one that is mounted.
#[derive(Debug)]
pub(crate) struct MountedPmxcfs;

impl Pmxcfs for MountedPmxcfs {
    fn create(&self, path: &Utf8Path, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let written = file.write_all(text.as_bytes());
        if written.is_err() {
            gone(std::fs::remove_file(path))?;
        }
        written
    }

    fn read(&self, path: &Utf8Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn replace(&self, path: &Utf8Path, text: &str) -> io::Result<()> {
        let new = successor(path);
        gone(std::fs::remove_file(&new))?;
        self.create(&new, text)?;
        nexcage_failpoint::hit("pve.conf-successor");
        std::fs::rename(new, path)
    }

    fn remove(&self, path: &Utf8Path) -> io::Result<()> {
        for path in [&successor(path), path] {
            // Without quorum it may not even be asked to remove what is not there.
            if is_there(path) {
                gone(std::fs::remove_file(path))?;
            }
        }
        Ok(())
    }
}

/// Whether there is a file.
pub(crate) fn is_there(path: &Utf8Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Where the next version of a file is written: no number to Proxmox, since it does not end in `.conf`.
pub(crate) fn successor(path: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}.tmp.nexcage"))
}

pub(crate) fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
