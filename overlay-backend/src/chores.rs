//! Work that nobody waits for: flushing layers to the disk and deleting what was removed.
//!
//! One thread, owned by the store, does it in turn. It ends when the store is dropped; what is left in the
//! trash then is deleted after the next start.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::LayerStoreError;
use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::error::Doing;
use crate::records::{Records, wait};

/// Directories held open while deleting. A container may have made its tree deeper than that: what is below
/// becomes a tree of its own in the trash.
const MAX_DEPTH: usize = 64;

/// Names read at once from a directory that is being emptied.
const BATCH: usize = 1024;

#[derive(Debug)]
enum Chore {
    Flush,
    Empty,
}

/// The trash, and the thread that empties it.
#[derive(Debug)]
pub(crate) struct Chores {
    trash: Arc<Trash>,
    queue: Option<Sender<Chore>>,
    thread: Option<JoinHandle<()>>,
}

impl Chores {
    /// Starts the thread. Everything in the directory `trash` is there to be deleted.
    pub(crate) fn start(trash: Utf8PathBuf, records: Records) -> Result<Self, LayerStoreError> {
        let path = trash.clone();
        let trash = Arc::new(Trash {
            path: trash,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let (queue, chores) = channel();
        let mine = trash.clone();
        let thread = std::thread::Builder::new()
            .name("overlay-chores".into())
            .spawn(move || work(&chores, &mine, &records))
            .doing("starting the thread that empties", &path)?;
        Ok(Self {
            trash,
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Flushes written layers to the disk, soon.
    pub(crate) fn flush(&self) {
        self.send(Chore::Flush);
    }

    /// Deletes what is in the trash, soon.
    pub(crate) fn empty(&self) {
        self.send(Chore::Empty);
    }

    fn send(&self, chore: Chore) {
        if let Some(queue) = &self.queue {
            // Fails only if the thread has panicked; the next start does what it leaves.
            let _ = queue.send(chore);
        }
    }

    /// Moves `path` to the trash. `Ok` if there is no such thing.
    pub(crate) fn discard(&self, path: &Utf8Path) -> Result<(), LayerStoreError> {
        self.trash.take(CWD, path.as_str())?;
        Ok(())
    }

    /// Deletes `path` at once, for room on the disk.
    pub(crate) fn delete(&self, path: &Utf8Path) -> Result<(), LayerStoreError> {
        self.trash.take(CWD, path.as_str())?;
        self.trash.empty().doing("deleting", path)
    }
}

impl Drop for Chores {
    fn drop(&mut self) {
        self.trash.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(chores: &Receiver<Chore>, trash: &Trash, records: &Records) {
    for chore in chores {
        if trash.stop.load(Ordering::Relaxed) {
            return;
        }
        match chore {
            Chore::Flush => {
                if let Err(error) = flush(&trash.path, records) {
                    tracing::warn!(%error, "layers could not be flushed to the disk; they are lost if the machine stops now");
                }
            }
            Chore::Empty => {
                if let Err(error) = trash.empty()
                    && !trash.stop.load(Ordering::Relaxed)
                {
                    tracing::warn!(%error, trash = %trash.path, "the trash could not be emptied; it is tried again at the next start");
                }
            }
        }
    }
}

/// One `syncfs` for however many layers have been written since the last.
fn flush(path: &Utf8Path, records: &Records) -> Result<(), LayerStoreError> {
    let written = wait(records.unflushed())?;
    if written.is_empty() {
        return Ok(());
    }
    let dir = open(CWD, path.as_str()).doing("opening", path)?;
    rustix::fs::syncfs(dir).doing("flushing the file system of", path)?;
    nexcage_failpoint::hit("overlay.flushed");
    wait(records.flushed(written))
}

#[derive(Debug)]
struct Trash {
    path: Utf8PathBuf,
    /// Makes names unique within this process.
    next: AtomicU64,
    stop: AtomicBool,
}

fn open(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

impl Trash {
    /// Moves `name` in `dir` into the trash.
    fn take(&self, dir: impl AsFd, name: &str) -> Result<(), LayerStoreError> {
        self.take_raw(dir, name)
            .doing("moving to the trash", Utf8Path::new(name))
    }

    fn take_raw(&self, dir: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let to = self.path.join(n.to_string());
            // Names of an earlier process may still be there.
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&dir, name, CWD, to.as_std_path(), flags) {
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(()),
                other => return other,
            }
        }
    }

    /// Deletes what is in the trash, and what deleting that puts there.
    fn empty(&self) -> Result<(), Errno> {
        let trash = open(CWD, self.path.as_std_path())?;
        self.empty_dir(&trash, 0)
    }

    fn empty_dir(&self, dir: &OwnedFd, depth: usize) -> Result<(), Errno> {
        loop {
            let names = batch(dir)?;
            if names.is_empty() || self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            for name in &names {
                match self.delete(dir, name, depth) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    // An immutable file, perhaps.
                    Err(Errno::PERM) => {
                        make_mutable(dir, name)?;
                        self.delete(dir, name, depth)?;
                    }
                    Err(e) => return Err(e),
                }
            }
        }
    }

    fn delete(&self, dir: &OwnedFd, name: &std::ffi::CStr, depth: usize) -> Result<(), Errno> {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            other => return other,
        }
        if depth >= MAX_DEPTH {
            return self.take_raw(dir, name);
        }
        self.empty_dir(&open(dir, name)?, depth + 1)?;
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            // Told to stop half-way.
            Err(Errno::NOTEMPTY) if self.stop.load(Ordering::Relaxed) => Err(Errno::CANCELED),
            other => other,
        }
    }
}

/// Takes the immutable and append-only flags off a file and its directory.
fn make_mutable(dir: &OwnedFd, name: &std::ffi::CStr) -> Result<(), Errno> {
    let _ = rustix::fs::ioctl_setflags(dir, IFlags::empty());
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if matches!(kind, FileType::RegularFile | FileType::Directory) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        rustix::fs::ioctl_setflags(file, IFlags::empty())?;
    }
    Ok(())
}

/// Some of the names in `dir`; none if it is empty.
fn batch(dir: &OwnedFd) -> Result<Vec<std::ffi::CString>, Errno> {
    let dir = open(dir, c".")?;
    let mut buffer = Vec::with_capacity(16 << 10);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() >= BATCH {
            break;
        }
    }
    Ok(names)
}
