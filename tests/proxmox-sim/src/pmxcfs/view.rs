//! What the tree looks like to the kernel: attributes, contents, what is open.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileHandle, FileType, INodeNo};

use super::names::is_private;
use super::special::{self, Cluster, Special};
use super::tree::{ROOT, Stat, Tree};

/// The file system.
#[derive(Debug)]
pub(super) struct Fuse {
    pub(super) tree: Arc<Mutex<Tree>>,
    pub(super) cluster: Cluster,
    pub(super) started: u64,
    /// The group `www-data`.
    pub(super) gid: u32,
    pub(super) open: Mutex<Open>,
}

/// What is open, so that a reader of a file that is replaced reads on.
#[derive(Debug, Default)]
pub(super) struct Open {
    last: u64,
    /// Inodes by handle.
    handles: HashMap<u64, u64>,
    /// Contents of files that are gone and still open.
    gone: HashMap<u64, Vec<u8>>,
}

pub(super) type Result<T> = std::result::Result<T, Errno>;

impl Fuse {
    pub(super) fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn attributes(&self, tree: &Tree, inode: u64) -> Result<FileAttr> {
        match special::by_inode(inode) {
            Some(special) => Ok(self.special_attributes(tree, inode, special)),
            None => {
                let stat = tree.stat(inode).map_err(errno)?;
                Ok(self.tree_attributes(tree, &stat))
            }
        }
    }

    pub(super) fn special_attributes(&self, tree: &Tree, inode: u64, special: Special) -> FileAttr {
        match special {
            Special::Link(_) => {
                let size = self.target(special).len() as u64;
                // Who asks for quorum looks at the write bit of `local`.
                let mode = if tree.quorate() { 0o755 } else { 0o555 };
                self.attr(inode, FileType::Symlink, mode, size, UNIX_EPOCH)
            }
            Special::File(file) => {
                let text = special::contents(file, tree, &self.cluster, self.started);
                let size = text.len() as u64;
                self.attr(inode, FileType::RegularFile, 0o440, size, UNIX_EPOCH)
            }
        }
    }

    pub(super) fn tree_attributes(&self, tree: &Tree, stat: &Stat) -> FileAttr {
        let (kind, mode) = match (stat.is_dir, tree.quorate()) {
            (true, true) => (FileType::Directory, 0o755),
            (true, false) => (FileType::Directory, 0o555),
            (false, true) => (FileType::RegularFile, 0o640),
            (false, false) => (FileType::RegularFile, 0o440),
        };
        let private = is_private(&tree.path(stat.inode));
        let mode = if private { mode & 0o700 } else { mode };
        let time = UNIX_EPOCH + Duration::from_secs(u64::from(stat.mtime));
        self.attr(stat.inode, kind, mode, stat.size, time)
    }

    pub(super) fn attr(
        &self,
        inode: u64,
        kind: FileType,
        perm: u16,
        size: u64,
        time: SystemTime,
    ) -> FileAttr {
        FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: 0,
            gid: self.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    pub(super) fn target(&self, special: Special) -> String {
        match special {
            Special::Link(below) => format!("nodes/{}{below}", self.cluster.node),
            Special::File(_) => String::new(),
        }
    }

    pub(super) fn find(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let tree = self.tree();
        let name = text(name)?;
        let special = (parent.0 == ROOT).then(|| special::by_name(name)).flatten();
        let inode = match special {
            Some(inode) => inode,
            None => tree.lookup(parent.0, name).map_err(errno)?,
        };
        self.attributes(&tree, inode)
    }

    /// A directory of the tree, and a name in it that is not special.
    pub(super) fn place<'a>(&self, parent: INodeNo, name: &'a OsStr) -> Result<(u64, &'a str)> {
        let name = text(name)?;
        if parent.0 == ROOT && special::by_name(name).is_some() {
            return Err(Errno::EACCES);
        }
        Ok((parent.0, name))
    }

    pub(super) fn contents(&self, inode: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        let tree = self.tree();
        let part = |data: &[u8]| {
            let from = usize::try_from(offset).map_or(data.len(), |from| from.min(data.len()));
            let to = from.saturating_add(size as usize).min(data.len());
            data[from..to].to_vec()
        };
        if let Some(Special::File(file)) = special::by_inode(inode) {
            let text = special::contents(file, &tree, &self.cluster, self.started);
            return Ok(part(text.as_bytes()));
        }
        match tree.data(inode) {
            Ok(data) => Ok(part(data)),
            Err(error) => match self.open().gone.get(&inode) {
                Some(data) => Ok(part(data)),
                None => Err(errno(error)),
            },
        }
    }

    /// Keeps the contents of a file that is about to go, if somebody has it open.
    pub(super) fn before_removal(&self, tree: &Tree, dir: u64, name: &str) {
        let Ok(inode) = tree.lookup(dir, name) else {
            return;
        };
        let mut open = self.open();
        if open.handles.values().any(|known| *known == inode)
            && let Ok(data) = tree.data(inode)
        {
            open.gone.insert(inode, data.to_vec());
        }
    }

    pub(super) fn opened(&self, inode: u64) -> FileHandle {
        let mut open = self.open();
        open.last += 1;
        let handle = open.last;
        open.handles.insert(handle, inode);
        FileHandle(handle)
    }

    /// Forgets a handle, and with the last one the contents of a file that is gone.
    pub(super) fn closed(&self, inode: u64, handle: FileHandle) {
        let mut open = self.open();
        open.handles.remove(&handle.0);
        if !open.handles.values().any(|known| *known == inode) {
            open.gone.remove(&inode);
        }
    }

    pub(super) fn set(&self, inode: u64, change: &Change) -> Result<FileAttr> {
        let mut tree = self.tree();
        let known = self.attributes(&tree, inode)?;
        if let Some(mode) = change.mode {
            // No other mode than that which is there with quorum.
            let private = is_private(&tree.path(inode));
            let allowed = if private { 0o600 } else { 0o640 };
            if mode & 0o7777 != allowed {
                return Err(Errno::EPERM);
            }
        }
        let owner = change.uid.unwrap_or(0) == 0 && change.gid.unwrap_or(self.gid) == self.gid;
        if !owner {
            return Err(Errno::EPERM);
        }
        if special::by_inode(inode).is_some() {
            let denied = change.size.is_some() || change.mtime.is_some();
            return if denied { Err(Errno::EIO) } else { Ok(known) };
        }
        if let Some(size) = change.size {
            tree.truncate(inode, size).map_err(errno)?;
        }
        if let Some(mtime) = change.mtime {
            tree.set_mtime(inode, mtime).map_err(errno)?;
        }
        match tree.stat(inode) {
            Ok(stat) => Ok(self.tree_attributes(&tree, &stat)),
            // A lock that was broken.
            Err(_) => Ok(known),
        }
    }
}

/// What `setattr` is asked to change.
pub(super) struct Change {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) mtime: Option<u32>,
}

pub(super) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

/// Names that are no text are in no tree.
pub(super) fn text(name: &OsStr) -> Result<&str> {
    name.to_str().ok_or(Errno::EINVAL)
}
