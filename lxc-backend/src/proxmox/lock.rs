//! Proxmox's lock of one container's configuration.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::pmxcfs::gone;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// A lock that is held (flock(2)), by a file that Proxmox's tools lock, too. Dropping it lets go.
#[derive(Debug)]
pub(crate) struct ConfLock {
    path: Utf8PathBuf,
    _file: File,
}

impl ConfLock {
    /// Takes the lock, or gives up when somebody else has had it for as long as `patience`. Blocks.
    pub(crate) fn take(path: &Utf8Path, patience: Duration) -> io::Result<Option<Self>> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let begun = Instant::now();
        loop {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever had it before may have removed it: then this is the lock of nothing.
                Ok(()) if is_at(&file, path)? => {
                    return Ok(Some(Self {
                        path: path.to_owned(),
                        _file: file,
                    }));
                }
                Ok(()) => continue,
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            if begun.elapsed() >= patience {
                return Ok(None);
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    /// Removes the file: there is nothing any more that it could be the lock of.
    pub(crate) fn remove(self) -> io::Result<()> {
        gone(std::fs::remove_file(&self.path))
    }
}

fn is_at(file: &File, path: &Utf8Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match path.metadata() {
        Ok(there) => Ok(there.dev() == held.dev() && there.ino() == held.ino()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_at_a_time_even_while_it_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(temp.path().join("lxc/pve-config-100.lock")).unwrap();
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (path, inside) = (&path, &inside);
                scope.spawn(move || {
                    for round in 0..20 {
                        let lock = ConfLock::take(path, Duration::from_secs(60)).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        if (thread + round) % 2 == 0 {
                            lock.unwrap().remove().unwrap();
                        }
                    }
                });
            }
        });
        let held = ConfLock::take(&path, Duration::ZERO).unwrap().unwrap();
        assert!(
            ConfLock::take(&path, Duration::from_millis(20))
                .unwrap()
                .is_none()
        );
        drop(held);
        assert!(ConfLock::take(&path, Duration::ZERO).unwrap().is_some());
    }
}
