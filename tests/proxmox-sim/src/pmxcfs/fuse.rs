//! The tree as a FUSE file system.
//!
//! Attributes are cached by the kernel for a second and contents never, as pmxcfs mounts itself. What pmxcfs does not implement is not
//! implemented here: symbolic links, hard links, extended attributes, flags of `renameat2`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    SessionACL, TimeOrNow, WriteFlags,
};

use super::names::is_private;
use super::special::{self, Cluster, SPECIALS, Special};
use super::tree::{MAX_FILE, ROOT, Stat, Tree};

/// How long the kernel believes what it knows of an entry.
const CACHED: Duration = Duration::from_secs(1);

const BLOCK: u64 = 4096;

/// Size and entries that are reported.
const MAX_BYTES: u64 = 128 << 20;
const MAX_ENTRIES: u64 = 256 << 10;

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

type Result<T> = std::result::Result<T, Errno>;

pub(super) fn config() -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("/dev/fuse".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    config.acl = SessionACL::All;
    config
}

impl Fuse {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, tree: &Tree, inode: u64) -> Result<FileAttr> {
        match special::by_inode(inode) {
            Some(special) => Ok(self.special_attributes(tree, inode, special)),
            None => {
                let stat = tree.stat(inode).map_err(errno)?;
                Ok(self.tree_attributes(tree, &stat))
            }
        }
    }

    fn special_attributes(&self, tree: &Tree, inode: u64, special: Special) -> FileAttr {
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

    fn tree_attributes(&self, tree: &Tree, stat: &Stat) -> FileAttr {
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

    fn attr(&self, inode: u64, kind: FileType, perm: u16, size: u64, time: SystemTime) -> FileAttr {
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

    fn target(&self, special: Special) -> String {
        match special {
            Special::Link(below) => format!("nodes/{}{below}", self.cluster.node),
            Special::File(_) => String::new(),
        }
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
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
    fn place<'a>(&self, parent: INodeNo, name: &'a OsStr) -> Result<(u64, &'a str)> {
        let name = text(name)?;
        if parent.0 == ROOT && special::by_name(name).is_some() {
            return Err(Errno::EACCES);
        }
        Ok((parent.0, name))
    }

    fn contents(&self, inode: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
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
    fn before_removal(&self, tree: &Tree, dir: u64, name: &str) {
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

    fn opened(&self, inode: u64) -> FileHandle {
        let mut open = self.open();
        open.last += 1;
        let handle = open.last;
        open.handles.insert(handle, inode);
        FileHandle(handle)
    }

    fn set(&self, inode: u64, change: &Change) -> Result<FileAttr> {
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
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    mtime: Option<u32>,
}

impl Filesystem for Fuse {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name) {
            Ok(attr) => reply.entry(&CACHED, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let tree = self.tree();
        match self.attributes(&tree, ino.0) {
            Ok(attr) => reply.attr(&CACHED, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change {
            mode,
            uid,
            gid,
            size,
            mtime: mtime.map(seconds),
        };
        match self.set(ino.0, &change) {
            Ok(attr) => reply.attr(&CACHED, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match special::by_inode(ino.0) {
            Some(link @ Special::Link(_)) => reply.data(self.target(link).as_bytes()),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::ENOSYS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::ENOSYS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = self.place(parent, name).and_then(|(dir, name)| {
            let mut tree = self.tree();
            let inode = tree.mkdir(dir, name).map_err(errno)?;
            self.attributes(&tree, inode)
        });
        match made {
            Ok(attr) => reply.entry(&CACHED, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        // The kernel does not ask a file system that does not know renameat2.
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let renamed = self.place(parent, name).and_then(|(dir, name)| {
            let (to_dir, to_name) = self.place(newparent, newname)?;
            let mut tree = self.tree();
            self.before_removal(&tree, to_dir, to_name);
            tree.rename(dir, name, to_dir, to_name).map_err(errno)
        });
        empty(renamed, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.attributes(&self.tree(), ino.0) {
            Ok(_) => reply.opened(self.opened(ino.0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.contents(ino.0, offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if special::by_inode(ino.0).is_some() {
            return reply.error(Errno::EIO);
        }
        match self.tree().write(ino.0, offset, data) {
            // A request is at most 128 KiB.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let mut open = self.open();
        open.handles.remove(&fh.0);
        if !open.handles.values().any(|known| *known == ino.0) {
            open.gone.remove(&ino.0);
        }
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tree = self.tree();
        let entries = match tree.list(ino.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(error)),
        };
        let dots = [".", ".."].map(|name| (name.to_owned(), ino.0));
        let specials = SPECIALS.iter().filter(|_| ino.0 == ROOT);
        let specials = specials.filter_map(|(name, _)| {
            let inode = special::by_name(name)?;
            Some(((*name).to_owned(), inode))
        });
        let all = dots.into_iter().chain(specials).chain(entries);
        for (next, (name, inode)) in (1..).zip(all).skip(usize::try_from(offset).unwrap_or(0)) {
            let kind = match special::by_inode(inode) {
                Some(Special::Link(_)) => FileType::Symlink,
                Some(Special::File(_)) => FileType::RegularFile,
                None if tree.stat(inode).is_ok_and(|stat| stat.is_dir) => FileType::Directory,
                None => FileType::RegularFile,
            };
            if reply.add(INodeNo(inode), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (bytes, entries) = self.tree().usage();
        let free = (MAX_BYTES / BLOCK).saturating_sub(bytes.div_ceil(BLOCK));
        let names = MAX_ENTRIES.saturating_sub(entries);
        let block = 4096;
        reply.statfs(
            MAX_BYTES / BLOCK,
            free,
            free,
            MAX_ENTRIES,
            names,
            block,
            256,
            block,
        );
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self.place(parent, name).and_then(|(dir, name)| {
            let mut tree = self.tree();
            let inode = tree.create(dir, name).map_err(errno)?;
            self.attributes(&tree, inode)
        });
        match made {
            Ok(attr) => {
                let handle = self.opened(attr.ino.0);
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&CACHED, &attr, Generation(0), handle, flags);
            }
            Err(error) => reply.error(error),
        }
    }
}

impl Fuse {
    fn remove(&self, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.place(parent, name).and_then(|(dir, name)| {
            let mut tree = self.tree();
            self.before_removal(&tree, dir, name);
            tree.remove(dir, name).map_err(errno)
        });
        empty(removed, reply);
    }
}

fn empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

/// Names that are no text are in no tree.
fn text(name: &OsStr) -> Result<&str> {
    name.to_str().ok_or(Errno::EINVAL)
}

fn seconds(time: TimeOrNow) -> u32 {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

const _: () = assert!(MAX_FILE < MAX_BYTES);
