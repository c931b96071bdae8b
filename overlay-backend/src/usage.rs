//! How much a tree takes.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use nexcage_image_store::{RootfsId, Usage};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags};
use rustix::io::{Errno, Result};

/// How long an answer is good: kubelet asks every ten seconds, and others in between.
const FRESH: Duration = Duration::from_secs(10);

/// Entries looked at in one tree. Beyond that the answer is a lower bound.
const MAX_ENTRIES: u64 = 10_000_000;

/// Levels looked at; each needs an open directory.
const MAX_DEPTH: usize = 256;

/// Files with several names remembered, so that they count once: 16 MiB.
const MAX_LINKED: usize = 1 << 20;

/// Answers given lately.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    known: Mutex<HashMap<RootfsId, (Instant, Usage)>>,
}

impl Cache {
    pub(crate) fn get(&self, id: &RootfsId) -> Option<Usage> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        (known.get(id))
            .filter(|(when, _)| when.elapsed() < FRESH)
            .map(|(_, usage)| *usage)
    }

    pub(crate) fn put(&self, id: &RootfsId, usage: Usage) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(id.clone(), (Instant::now(), usage));
    }

    pub(crate) fn forget(&self, id: &RootfsId) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(id);
    }
}

/// What the tree at `path` takes on disk, itself included. Zero if there is none. Files that come or go
/// meanwhile are no error.
pub(crate) fn of(path: &Utf8Path) -> Result<Usage> {
    let mut walk = Walk::default();
    match open(CWD, path.as_std_path()) {
        Ok(dir) => walk.dir(&dir, 0)?,
        Err(Errno::NOENT) => {}
        Err(e) => return Err(e),
    }
    Ok(walk.usage)
}

#[derive(Default)]
struct Walk {
    usage: Usage,
    linked: HashSet<u64>,
}

fn open(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

impl Walk {
    fn dir(&mut self, dir: &OwnedFd, depth: usize) -> Result<()> {
        self.count(dir, c"")?;
        let mut subdirs = Vec::new();
        let mut buffer = Vec::with_capacity(16 << 10);
        let mut entries = RawDir::new(dir.as_fd(), buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if self.usage.inodes >= MAX_ENTRIES {
                return Ok(());
            }
            match entry.file_type() {
                FileType::Directory => subdirs.push(name.to_owned()),
                _ => self.count(dir, name)?,
            }
        }
        drop(buffer);
        if depth >= MAX_DEPTH {
            return Ok(());
        }
        for name in subdirs {
            match open(dir, &name) {
                Ok(inner) => self.dir(&inner, depth + 1)?,
                // Gone, or something else by now.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn count(&mut self, dir: &OwnedFd, name: &std::ffi::CStr) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let stat = match rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e),
        };
        let is_dir = FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory;
        if !is_dir && stat.stx_nlink > 1 && self.linked.len() < MAX_LINKED {
            // One file system, so the inode's number is enough.
            if !self.linked.insert(stat.stx_ino) {
                return Ok(());
            }
        }
        self.usage.inodes += 1;
        self.usage.bytes = self.usage.bytes.saturating_add(stat.stx_blocks * 512);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_count_once_and_a_missing_tree_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::write(path.join("a"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(path.join("a"), path.join("b")).unwrap();
        std::fs::create_dir_all(path.join("d/e")).unwrap();
        let usage = of(path).unwrap();
        assert_eq!(usage.inodes, 4);
        assert!((100_000..130_000).contains(&usage.bytes), "{usage:?}");
        assert_eq!(of(&path.join("none")).unwrap(), Usage::default());
    }

    #[test]
    fn answers_are_kept_and_forgotten() {
        let (cache, id) = (Cache::default(), RootfsId("a".into()));
        assert_eq!(cache.get(&id), None);
        cache.put(
            &id,
            Usage {
                bytes: 1,
                inodes: 2,
            },
        );
        assert_eq!(
            cache.get(&id),
            Some(Usage {
                bytes: 1,
                inodes: 2
            })
        );
        cache.forget(&id);
        assert_eq!(cache.get(&id), None);
    }
}
