//! Taking things out of a tree, and remembering what to leave there.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;

use rustix::io::Result;

use super::sys;
use super::tree::keeping_mtime;

/// What this layer has entries for. Whiteouts remove everything else: in a merged tree what was there before,
/// in the layer's own directory what was only made for other entries, as whiteouts were.
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

    /// Removes `name` in `dir`, whatever it is. Not deeper than the depth of one layer, which is limited.
    ///
    /// Entries below are forgotten: the next directory may get the inode of one that is gone.
    pub(super) fn remove(&mut self, dir: impl AsFd, name: &[u8]) -> Result<()> {
        let dir = dir.as_fd();
        match sys::stat(dir, name)? {
            None => Ok(()),
            Some(stat) if sys::is_dir(&stat) => {
                let inner = sys::open_dir(dir, name)?;
                for child in sys::names(&inner)? {
                    self.remove(&inner, &child)?;
                    let key = self.key(stat.stx_ino, &child);
                    self.entries.remove(&key);
                }
                sys::rmdir(dir, name)
            }
            Some(_) => sys::unlink(dir, name),
        }
    }

    /// Removes what this layer has no entries for from the directory `dir`. Says whether anything stays.
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
