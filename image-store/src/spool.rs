//! Files for layers on their way into the layer store.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicU64, Ordering};

use camino::{Utf8Path, Utf8PathBuf};

/// The spool directory. Nothing in it outlives the process that made it: files remove
/// themselves, and what a killed process left is removed when the spool is opened.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: Utf8PathBuf,
    next: AtomicU64,
}

/// A file in the spool. Removed when dropped.
#[derive(Debug)]
pub(crate) struct SpoolFile {
    path: Utf8PathBuf,
}

impl Spool {
    /// Opens the spool and empties it. Blocking.
    pub(crate) fn open(dir: Utf8PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)?;
        for entry in fs::read_dir(&dir)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self {
            dir,
            next: AtomicU64::new(0),
        })
    }

    /// A new, empty file. Blocking.
    pub(crate) fn create(&self) -> io::Result<(SpoolFile, File)> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{n}.tar"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok((SpoolFile { path }, file))
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Utf8Path {
        &self.dir
    }
}

impl SpoolFile {
    /// Where it is.
    pub(crate) fn path(&self) -> &Utf8Path {
        &self.path
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%path, %error, "cannot remove a spooled layer; the next start will");
            }
        };
        // Freeing the blocks of a large file takes long enough to keep it off the workers.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn_blocking(remove);
            }
            Err(_) => remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_swept_and_a_dropped_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::try_from(dir.path().join("spool")).unwrap();
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("0.tar"), "left over").unwrap();
        let spool = Spool::open(dir.clone()).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        let (guard, _file) = spool.create().unwrap();
        assert!(guard.path().exists());
        drop(guard);
        assert_eq!(fs::read_dir(spool.dir()).unwrap().count(), 0);
    }
}
