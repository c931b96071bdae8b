//! Taking things out of a tree.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;

use rustix::io::Result;

use super::sys;
use super::tree::keeping_mtime;

/// Removes `name` in `dir`, whatever it is. Not deeper than the depth of one layer, which is limited.
pub(super) fn remove(dir: impl AsFd, name: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    match sys::stat(dir, name)? {
        None => Ok(()),
        Some(stat) if sys::is_dir(&stat) => {
            let inner = sys::open_dir(dir, name)?;
            for child in sys::names(&inner)? {
                remove(&inner, &child)?;
            }
            sys::rmdir(dir, name)
        }
        Some(_) => sys::unlink(dir, name),
    }
}

/// What this layer has put into a merged tree: whiteouts remove what was there before it, and nothing else.
///
/// An entry is remembered as 8 bytes, a keyed hash of its directory's inode and its name.
#[derive(Debug, Default)]
pub(super) struct Written {
    entries: HashSet<u64>,
    hasher: RandomState,
}

impl Written {
    fn key(&self, dir_inode: u64, name: &[u8]) -> u64 {
        self.hasher.hash_one((dir_inode, name))
    }

    pub(super) fn insert(&mut self, dir_inode: u64, name: &[u8]) {
        self.entries.insert(self.key(dir_inode, name));
    }

    /// Removes what is older than this layer from the directory `dir`. Says whether anything stays.
    pub(super) fn prune_all(&self, dir: impl AsFd) -> Result<bool> {
        let dir = dir.as_fd();
        let mut stays = false;
        keeping_mtime(dir, || {
            for child in sys::names(dir)? {
                stays |= self.prune(dir, &child)?;
            }
            Ok(())
        })?;
        Ok(stays)
    }

    /// Removes `name` in `dir` unless this layer wrote it or something in it. Says whether it stays.
    pub(super) fn prune(&self, dir: impl AsFd, name: &[u8]) -> Result<bool> {
        let dir = dir.as_fd();
        let Some(stat) = sys::stat(dir, name)? else {
            return Ok(false);
        };
        let ours = (self.entries).contains(&self.key(sys::fstat(dir)?.stx_ino, name));
        if !sys::is_dir(&stat) {
            if !ours {
                sys::unlink(dir, name)?;
            }
            return Ok(ours);
        }
        let stays = self.prune_all(sys::open_dir(dir, name)?)? || ours;
        if !stays {
            sys::rmdir(dir, name)?;
        }
        Ok(stays)
    }
}
