//! Who uses a thing, and when it was used last.
//!
//! Whoever uses a thing has a shared lock on its directory, which the kernel takes back from a process that ends, however it
//! does. Who wants to remove it needs the lock alone. The directory's modification time is when it was used last.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;
use camino::Utf8Path;

/// What this chore uses until it ends.
static BY_THIS_CHORE: Mutex<Vec<InUse>> = Mutex::new(Vec::new());

/// A thing that nobody removes.
pub(super) struct InUse(File);

impl InUse {
    /// Uses it from now on; `None` if it is not there.
    pub(super) fn take(dir: &Utf8Path) -> anyhow::Result<Option<Self>> {
        let taken = match open(dir).and_then(|opened| opened.map(Self::lock).transpose()) {
            Ok(None) => return Ok(None),
            other => other.with_context(|| format!("cannot lock {dir}"))?,
        };
        // The lock was waited for if somebody removed it just then.
        Ok(taken.filter(|taken| is_at(&taken.0, dir)))
    }

    fn lock(dir: File) -> io::Result<Self> {
        dir.lock_shared()?;
        dir.set_modified(SystemTime::now())?;
        Ok(Self(dir))
    }

    /// Uses it until this process ends.
    pub(super) fn until_the_end(self) {
        let mut used = BY_THIS_CHORE.lock().unwrap_or_else(PoisonError::into_inner);
        used.push(self);
    }

    /// The same use by a child that is started while the answer lives: it ends when that child has ended, too.
    fn for_child(&self) -> io::Result<OwnedFd> {
        // Without FD_CLOEXEC, with which all other files here are opened.
        Ok(rustix::io::dup(&self.0)?)
    }
}

/// Has a child that goes on after this chore use all that this chore uses. To be kept until the child is started.
pub(crate) fn lend() -> anyhow::Result<Vec<OwnedFd>> {
    let used = BY_THIS_CHORE.lock().unwrap_or_else(PoisonError::into_inner);
    used.iter()
        .map(InUse::for_child)
        .collect::<io::Result<_>>()
        .context("cannot lend what is used of the cache")
}

/// A thing that nobody uses, nor will as long as this lives.
pub(super) struct Unused(File);

impl Unused {
    /// `None` if somebody uses it, or it is not there.
    pub(super) fn take(dir: &Utf8Path) -> io::Result<Option<Self>> {
        let Some(opened) = open(dir)? else {
            return Ok(None);
        };
        match opened.try_lock() {
            Ok(()) => Ok(is_at(&opened, dir).then_some(Self(opened))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// When it was used last.
    pub(super) fn last_used(&self) -> io::Result<SystemTime> {
        self.0.metadata()?.modified()
    }
}

fn open(dir: &Utf8Path) -> io::Result<Option<File>> {
    match File::open(dir) {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether what was opened is still what has this name.
fn is_at(opened: &File, dir: &Utf8Path) -> bool {
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    matches!(
        (opened.metadata().map(id), fs::metadata(dir).map(id)),
        (Ok(opened), Ok(there)) if opened == there
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::MutexGuard;
    use std::time::Duration;

    use super::*;
    use crate::run::command;

    /// For tests that start a program, and those that want a lock: until a program has begun, it has all files of its parent, and
    /// with them their locks.
    pub(crate) fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory() -> (tempfile::TempDir, camino::Utf8PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(temporary.path()).unwrap().join("thing");
        fs::create_dir(&dir).unwrap();
        (temporary, dir)
    }

    #[test]
    fn many_may_use_a_thing_and_only_then_it_may_go() {
        let _alone = alone();
        let (_temporary, dir) = directory();
        let long_ago = SystemTime::now() - Duration::from_secs(1_000_000);
        File::open(&dir).unwrap().set_modified(long_ago).unwrap();
        let one = InUse::take(&dir).unwrap().unwrap();
        let two = InUse::take(&dir).unwrap().unwrap();
        drop(one);
        assert!(Unused::take(&dir).unwrap().is_none());
        drop(two);
        let unused = Unused::take(&dir).unwrap().unwrap();
        let age = unused.last_used().unwrap().elapsed().unwrap();
        assert!(age < Duration::from_secs(100), "{age:?}");
        let nothing = dir.join("nothing");
        assert!(InUse::take(&nothing).unwrap().is_none());
        assert!(Unused::take(&nothing).unwrap().is_none());
    }

    #[test]
    fn what_was_made_anew_is_another_thing() {
        let (_temporary, dir) = directory();
        let opened = File::open(&dir).unwrap();
        assert!(is_at(&opened, &dir));
        fs::remove_dir(&dir).unwrap();
        assert!(!is_at(&opened, &dir));
        fs::create_dir(&dir).unwrap();
        assert!(!is_at(&opened, &dir));
    }

    #[test]
    fn a_child_that_goes_on_keeps_what_was_lent_to_it() {
        let _alone = alone();
        let (_temporary, dir) = directory();
        let used = InUse::take(&dir).unwrap().unwrap();
        let lent = used.for_child().unwrap();
        let mut heir = command("sleep").arg("60").spawn().unwrap();
        drop((lent, used));
        assert!(Unused::take(&dir).unwrap().is_none());
        heir.kill().unwrap();
        heir.wait().unwrap();
        assert!(Unused::take(&dir).unwrap().is_some());

        let used = InUse::take(&dir).unwrap().unwrap();
        let mut stranger = command("sleep").arg("60").spawn().unwrap();
        drop(used);
        assert!(Unused::take(&dir).unwrap().is_some());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
