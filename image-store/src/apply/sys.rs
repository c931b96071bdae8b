//! The few system calls of the applier, each on one component of a path.
//!
//! Every name given here is a single component, so no call can leave the directory it starts
//! from, and none follows a symbolic link.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxFlags, Timespec, Timestamps,
};
use rustix::fs::{Gid, Uid, XattrFlags};
use rustix::io::{Errno, Result};

/// The mark of overlayfs for a directory that hides what is below it.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Longest list of names and longest value of extended attributes that Linux allows.
const XATTR_MAX: usize = 64 << 10;

/// `O_PATH` is not enough: attributes and times are set through these descriptors.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Owner, mode and time to set on something new.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits.
    pub(super) mode: u32,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
}

impl Attributes {
    pub(super) fn of(stat: &Statx) -> Self {
        Self {
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mode: u32::from(stat.stx_mode) & 0o7777,
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        }
    }

    fn times(&self) -> Timestamps {
        times(self.mtime)
    }

    /// Sets them on something open. The mode comes last: `chown` takes setuid bits away, and
    /// setting capabilities needs write permission.
    pub(super) fn set(&self, fd: impl AsFd, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let fd = fd.as_fd();
        rustix::fs::fchown(
            fd,
            Some(Uid::from_raw(self.uid)),
            Some(Gid::from_raw(self.gid)),
        )?;
        for (name, value) in xattrs {
            rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty())?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(self.mode))?;
        rustix::fs::futimens(fd, &self.times())
    }

    /// Sets them on a link, device or fifo, which cannot be opened.
    pub(super) fn set_at(&self, dir: impl AsFd, name: &[u8], is_link: bool) -> Result<()> {
        let (dir, nofollow) = (dir.as_fd(), AtFlags::SYMLINK_NOFOLLOW);
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), nofollow)?;
        if !is_link {
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(dir, name, &self.times(), nofollow)
    }
}

fn times((tv_sec, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Sets the time of modification alone.
pub(super) fn set_mtime(fd: impl AsFd, mtime: (i64, u32)) -> Result<()> {
    rustix::fs::futimens(fd, &times(mtime))
}

/// What `name` is, or `None` if there is no such thing.
pub(super) fn stat(dir: impl AsFd, name: &[u8]) -> Result<Option<Statx>> {
    match rustix::fs::statx(
        dir,
        name,
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS,
    ) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The same of something open.
pub(super) fn fstat(fd: impl AsFd) -> Result<Statx> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

pub(super) fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(stat.stx_mode))
}

pub(super) fn is_dir(stat: &Statx) -> bool {
    file_type(stat) == FileType::Directory
}

/// Whether this is how overlayfs says that a name is gone.
pub(super) fn is_whiteout(stat: &Statx) -> bool {
    file_type(stat) == FileType::CharacterDevice
        && (stat.stx_rdev_major, stat.stx_rdev_minor) == (0, 0)
}

pub(super) fn make_whiteout(dir: impl AsFd, name: &[u8]) -> Result<()> {
    rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}

pub(super) fn open_dir(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())
}

/// Makes a directory that only we can enter, and opens it.
pub(super) fn make_dir(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    rustix::fs::mkdirat(&dir, name, Mode::RWXU)?;
    open_dir(dir, name)
}

pub(super) fn is_opaque(dir: impl AsFd) -> Result<bool> {
    let mut value = [0_u8; 2];
    match rustix::fs::fgetxattr(dir, OPAQUE, &mut value) {
        Ok(n) => Ok(&value[..n] == b"y"),
        // Longer values exist, but mean something else.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

pub(super) fn set_opaque(dir: impl AsFd) -> Result<()> {
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
}

/// Whether an image may set this extended attribute.
///
/// `trusted.` belongs to overlayfs, whose metadata no image may forge. Labels of security modules
/// (`security.selinux`, `security.ima`) follow the policy of this machine, not that of the one
/// where the image was built.
pub(super) fn xattr_allowed(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || matches!(
            name,
            b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
        )
}

/// The extended attributes of something open that belong to its content.
pub(super) fn xattrs(fd: impl AsFd) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let fd = fd.as_fd();
    let mut names = vec![0_u8; XATTR_MAX];
    let length = match rustix::fs::flistxattr(fd, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for name in names[..length]
        .split(|b| *b == 0)
        .filter(|n| xattr_allowed(n))
    {
        let mut value = vec![0_u8; XATTR_MAX];
        let length = rustix::fs::fgetxattr(fd, name, &mut value[..])?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    Ok(found)
}

/// The names in a directory.
pub(super) fn names(dir: impl AsFd) -> Result<Vec<Vec<u8>>> {
    // A descriptor of its own: reading moves the position.
    let dir = open_dir(dir, b".")?;
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

pub(super) fn unlink(dir: impl AsFd, name: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::empty())
}

pub(super) fn rmdir(dir: impl AsFd, name: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
