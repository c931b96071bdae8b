//! Room that is kept for taking things away.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Bytes of a whole reserve: SQLite's log is as long when it begins anew, and needs no more room from then on.
const SIZE: u64 = 4 << 20;

/// Bytes given up at a time. A change takes a tenth of it, and where somebody else fills the disk meanwhile, nobody knows who gets
/// the rest: so there is a slice for each of some changes, and not all for the first.
const SLICE: usize = 256 << 10;

/// Bytes that file systems look at together, at least.
const BLOCK: usize = 4096;

/// Bytes that must be free besides when it is made: on a disk that is nearly full, others have to take things away, too.
const BESIDES: u64 = SIZE;

/// `f_type` of statfs(2) for ZFS.
const ZFS: u64 = 0x2fc1_2fc1;

/// How long a transaction group of ZFS may last: it is closed after five seconds (`zfs_txg_timeout`), and written.
const GROUP: Duration = Duration::from_secs(10);

/// A file beside the database. It has bytes in it that no file system can keep in less room; what fallocate(2) promises,
/// file systems that write everything anew do not keep, ZFS among them.
#[derive(Debug)]
pub(crate) struct Reserve {
    file: Utf8PathBuf,
}

impl Reserve {
    /// The one of a database.
    pub(crate) fn of(database: &Utf8Path) -> Self {
        Self {
            file: format!("{database}-reserve").into(),
        }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Utf8Path {
        &self.file
    }

    /// Makes it whole, if it is not; fails if there is no room for that.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let there = match std::fs::metadata(&self.file) {
            Err(e) if e.kind() == ErrorKind::NotFound => 0,
            found => found?.len(),
        };
        if there >= SIZE {
            return Ok(());
        }
        let mut file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.file)?;
        let disk = rustix::fs::fstatvfs(&file)?;
        // Blocks that only root may use are ours, too.
        let free = disk.f_bfree.saturating_mul(disk.f_frsize);
        let mut missing = SIZE - there;
        if free < missing + BESIDES {
            return Err(Errno::NOSPC.into());
        }
        let mut slice = vec![0; SLICE];
        File::open("/dev/urandom")?.read_exact(&mut slice)?;
        while missing > 0 {
            // No block is like another, for file systems that keep such once.
            for block in slice.chunks_exact_mut(BLOCK) {
                block[..8].copy_from_slice(&missing.to_ne_bytes());
            }
            let bytes = usize::try_from(missing).map_or(SLICE, |missing| missing.min(SLICE));
            file.write_all(&slice[..bytes])?;
            missing -= bytes as u64;
        }
        Ok(())
    }

    /// Gives up a slice; `false` if there is none. When it returns, others can have the room.
    pub(crate) fn give_up(&self) -> io::Result<bool> {
        let file = match File::options().write(true).open(&self.file) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        let there = file.metadata()?.len();
        if there == 0 {
            return Ok(false);
        }
        let used = used(&file)?;
        let left = there.saturating_sub(SLICE as u64);
        match file.set_len(left) {
            // ZFS frees the room, and has none for the time when it did.
            Err(e) if is_full(&e) && file.metadata()?.len() == left => {}
            cut => cut?,
        }
        let on_zfs = rustix::fs::fstatfs(&file).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(ZFS));
        match on_zfs {
            true => wait_for_group(&file, used)?,
            // What was freed belongs to nobody before the journal says so.
            false => file.sync_all()?,
        }
        Ok(true)
    }
}

/// Waits until less is used: what was freed belongs to nobody before the transaction group has ended, for which neither
/// fsync(2) nor syncfs(2) waits on ZFS.
#[allow(
    clippy::disallowed_methods,
    reason = "the thread of the database, which has nothing better to do"
)]
fn wait_for_group(file: &File, used_before: u64) -> io::Result<()> {
    // Where the holes of a file are is not known before it is written, so this ends the group (`zfs_dmu_offset_next_sync`).
    // It may be configured not to, and finds nothing in an empty file.
    let _ = rustix::fs::seek(file, SeekFrom::Hole(0));
    let begun = Instant::now();
    while used(file)? >= used_before && begun.elapsed() < GROUP {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Blocks in use in the file system.
fn used(file: &File) -> io::Result<u64> {
    let disk = rustix::fs::fstatvfs(file)?;
    Ok(disk.f_blocks.saturating_sub(disk.f_bfree))
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_in_slices_and_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let database = Utf8PathBuf::try_from(dir.path().join("x.db")).unwrap();
        let reserve = Reserve::of(&database);
        let len = || std::fs::metadata(reserve.path()).unwrap().len();
        assert!(!reserve.give_up().unwrap());

        reserve.fill().unwrap();
        assert_eq!(len(), SIZE);
        reserve.fill().unwrap();
        assert_eq!(len(), SIZE);

        let mut slices = 0;
        while reserve.give_up().unwrap() {
            slices += 1;
            assert_eq!(len(), SIZE - slices * SLICE as u64);
        }
        assert_eq!(slices, 16);
        reserve.fill().unwrap();
        assert_eq!(len(), SIZE);
    }
}
