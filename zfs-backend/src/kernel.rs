//! The seam to the kernel: mounting datasets, and what `zfs` need not be asked for.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use nexcage_image_store::idmap::set_idmap;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

/// A dataset that is mounted nowhere, but open. It is unmounted when dropped, which may block.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Its root directory.
    pub(crate) dir: OwnedFd,
    /// Dropped after the directory; without it the mount is gone.
    _mount: Option<OwnedFd>,
    #[cfg(test)]
    pub(crate) count: Option<fn(&OwnedFd) -> u64>,
}

impl Tree {
    /// Files and directories in the dataset, as of its last transaction group.
    pub(crate) fn objects(&self) -> io::Result<u64> {
        #[cfg(test)]
        if let Some(count) = self.count {
            return Ok(count(&self.dir));
        }
        let stat = rustix::fs::fstatvfs(&self.dir)?;
        Ok(stat.f_files.saturating_sub(stat.f_ffree))
    }

    #[cfg(test)]
    pub(crate) fn of(dir: OwnedFd, count: fn(&OwnedFd) -> u64) -> Self {
        Self {
            dir,
            _mount: None,
            count: Some(count),
        }
    }
}

/// What is asked of the kernel. All of it may block, and for ever if the pool is suspended.
pub(crate) trait Kernel: Send + Sync + fmt::Debug {
    /// Opens a dataset or snapshot without mounting it anywhere.
    fn open(&self, name: &str) -> io::Result<Tree>;

    /// Mounts a dataset, or a snapshot read-only, on the directory `target`.
    fn mount(&self, name: &str, target: &Utf8Path, idmap: Option<BorrowedFd<'_>>)
    -> io::Result<()>;

    /// Whether something is mounted at `path`; not if it does not exist.
    fn is_mounted(&self, path: &Utf8Path) -> io::Result<bool>;

    /// What is mounted at `path`, as its dataset is called.
    fn mounted(&self, path: &Utf8Path) -> io::Result<Option<String>>;

    /// Unmounts whatever is mounted at `path` and removes the mount point. A mount that is in use
    /// leaves the tree at once and ends when its last user does. Without the mount point, copies of the mount in
    /// other mount namespaces end as well, but not where it is the root directory.
    fn unmount(&self, path: &Utf8Path) -> io::Result<()>;

    /// How the pool is (`ONLINE`, `SUSPENDED`, ...), if it is imported.
    fn pool_state(&self, pool: &str) -> io::Result<Option<String>>;
}

/// How long a busy dataset is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// The kernel of this machine.
#[derive(Debug)]
pub(crate) struct Linux;

/// Makes a mount that is nowhere yet. Needs no mount point, leaves no trace in the mount table, and ends
/// with this process. Snapshots, and everything in a pool that is imported read-only, are read-only.
///
/// A dataset is busy while its last mount is being taken down or an administrator's command holds it, both of which pass:
/// it is asked again for [`BUSY`].
fn detached(name: &str) -> io::Result<OwnedFd> {
    let begun = Instant::now();
    let mut read_only = name.contains('@');
    loop {
        match new_mount(name, read_only) {
            Err(Errno::ROFS) if !read_only => read_only = true,
            Err(Errno::BUSY) if begun.elapsed() < BUSY => std::thread::park_timeout(BUSY / 100),
            mount => return Ok(mount?),
        }
    }
}

fn new_mount(name: &str, read_only: bool) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("zfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", name)?;
    let mut attributes = MountAttrFlags::empty();
    if read_only {
        rustix::mount::fsconfig_set_flag(&context, "ro")?;
        attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    rustix::mount::fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    rustix::mount::fsmount(&context, flags, attributes)
}

impl Kernel for Linux {
    fn open(&self, name: &str) -> io::Result<Tree> {
        let mount = detached(name)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&mount, ".", flags, Mode::empty())?;
        Ok(Tree {
            dir,
            _mount: Some(mount),
            #[cfg(test)]
            count: None,
        })
    }

    fn mount(
        &self,
        name: &str,
        target: &Utf8Path,
        idmap: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mount = detached(name)?;
        if let Some(userns) = idmap {
            set_idmap(mount.as_fd(), userns)?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(rustix::mount::move_mount(
            mount,
            "",
            CWD,
            target.as_std_path(),
            flags,
        )?)
    }

    fn is_mounted(&self, path: &Utf8Path) -> io::Result<bool> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match rustix::fs::statx(CWD, path.as_std_path(), flags, StatxFlags::empty()) {
            Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn mounted(&self, path: &Utf8Path) -> io::Result<Option<String>> {
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        Ok(source_at(&table, path))
    }

    fn unmount(&self, path: &Utf8Path) -> io::Result<()> {
        while self.is_mounted(path)? {
            let plain = UnmountFlags::NOFOLLOW;
            let gone = match rustix::mount::unmount(path.as_std_path(), plain) {
                Err(Errno::BUSY) => {
                    rustix::mount::unmount(path.as_std_path(), plain | UnmountFlags::DETACH)
                }
                other => other,
            };
            match gone {
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        match std::fs::remove_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn pool_state(&self, pool: &str) -> io::Result<Option<String>> {
        match std::fs::read_to_string(format!("/proc/spl/kstat/zfs/{pool}/state")) {
            Ok(state) => Ok(Some(state.trim().to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// What a mount table (`proc_pid_mountinfo(5)`) says of `path`; the last line counts.
fn source_at(table: &str, path: &Utf8Path) -> Option<String> {
    let at = |line: &&str| line.split(' ').nth(4) == Some(path.as_str());
    let line = table.lines().rfind(at)?;
    let (_, after) = line.split_once(" - ")?;
    after.split(' ').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_mount_counts() {
        let table = "22 1 0:20 / / rw - ext4 /dev/vda rw\n\
                     40 22 0:41 / /var/lib/n/zfs rw shared:1 - zfs tank/a/fs rw,xattr\n\
                     41 40 0:42 / /var/lib/n/zfs rw shared:2 - zfs tank/b/fs rw,xattr\n";
        let path = Utf8Path::new("/var/lib/n/zfs");
        assert_eq!(source_at(table, path).as_deref(), Some("tank/b/fs"));
        assert_eq!(source_at(table, Utf8Path::new("/var")), None);
    }
}
