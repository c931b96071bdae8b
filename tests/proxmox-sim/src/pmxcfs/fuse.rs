//! The tree as a FUSE file system.
//!
//! Attributes are cached by the kernel for a second and contents never, as pmxcfs mounts itself. What pmxcfs does not implement is not
//! implemented here: symbolic links, hard links, extended attributes, flags of `renameat2`.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    SessionACL, TimeOrNow, WriteFlags,
};

use super::special::{self, SPECIALS, Special};
use super::tree::{MAX_FILE, ROOT};
use super::view::{Change, Fuse, Result, errno};

/// How long the kernel believes what it knows of an entry.
const CACHED: Duration = Duration::from_secs(1);

const BLOCK: u64 = 4096;

/// Size and entries that are reported.
const MAX_BYTES: u64 = 128 << 20;
const MAX_ENTRIES: u64 = 256 << 10;

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
        self.closed(ino.0, fh);
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

fn seconds(time: TimeOrNow) -> u32 {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

const _: () = assert!(MAX_FILE < MAX_BYTES);
