//! The directory of an LXC container of ours: `<lxc_path>/<name>`.
//!
//! It has a marker, a symbolic link whose target is the sandbox's id. Links are made in one step, so a crash leaves either an
//! empty directory or a marked one. What is neither belongs to somebody else, and is never touched, whatever its name.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_sandbox::SandboxId;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

const MARKER: &str = "nexcage-sandbox";

/// A directory that may hold a container of ours.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: Utf8PathBuf,
    id: SandboxId,
}

impl Directory {
    pub(crate) fn new(lxc_path: &Utf8Path, name: &str, id: &SandboxId) -> Self {
        Self {
            path: lxc_path.join(name),
            id: id.clone(),
        }
    }

    /// `config`, which LXC's tools look for.
    pub(crate) fn config(&self) -> Utf8PathBuf {
        self.path.join("config")
    }

    /// LXC's log of this container.
    pub(crate) fn log(&self) -> Utf8PathBuf {
        self.path.join("lxc.log")
    }

    /// Makes and marks it; takes over one of ours. Blocks.
    pub(crate) fn make(&self) -> io::Result<()> {
        match self.claim()? {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} exists and is not of nexcage; move it away", self.path),
            )),
        }
    }

    /// Makes and marks it, unless somebody else has it; whoever marks it first has it. False if another did. Blocks.
    pub(crate) fn claim(&self) -> io::Result<bool> {
        match std::fs::create_dir(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            Err(_) if !self.is_ours() => return Ok(false),
            _ => {}
        }
        nexcage_failpoint::hit("lxc.directory-made");
        match std::os::unix::fs::symlink(&self.id.0, self.path.join(MARKER)) {
            // Another was faster, or it is our own of an earlier try.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(self.is_marked()),
            // Whoever made it gave it up meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            marked => marked.map(|()| true),
        }
    }

    /// Whether it is marked as this sandbox's. Blocks.
    pub(crate) fn is_marked(&self) -> bool {
        marked_as(&self.path).is_some_and(|id| id == self.id)
    }

    /// Whether nexcage made it for this sandbox. Blocks.
    pub(crate) fn is_ours(&self) -> bool {
        match marked_as(&self.path) {
            Some(id) => id == self.id,
            // Made and not marked yet: nothing can be lost with it.
            None => std::fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none()),
        }
    }

    /// Takes back what [`claim`](Self::claim) did, and leaves everything that others put there. Blocks.
    pub(crate) fn give_up(&self) -> io::Result<()> {
        if self.is_marked() {
            gone(std::fs::remove_file(self.path.join(MARKER)))?;
        }
        remove_if_empty(&self.path)
    }

    /// Removes it with all that LXC put there, the marker last. `Ok` when it is not there or not ours. Blocks.
    pub(crate) fn remove(&self) -> io::Result<()> {
        if !self.is_ours() {
            if self.path.exists() {
                tracing::warn!(path = %self.path, "not removed: it has the name of a sandbox, but nexcage did not make it");
            }
            return Ok(());
        }
        for entry in self.path.read_dir_utf8()? {
            let entry = entry?;
            if entry.file_name() == MARKER {
                continue;
            }
            if entry.file_type()?.is_dir() {
                unmount(entry.path())?;
                std::fs::remove_dir_all(entry.path())?;
            } else {
                gone(std::fs::remove_file(entry.path()))?;
            }
        }
        gone(std::fs::remove_file(self.path.join(MARKER)))?;
        gone(std::fs::remove_dir(&self.path))
    }
}

/// The sandbox that a directory is marked as being of. Blocks.
pub fn marked_as(directory: &Utf8Path) -> Option<SandboxId> {
    let target = std::fs::read_link(directory.join(MARKER)).ok()?;
    target.into_os_string().into_string().ok().map(SandboxId)
}

/// Removes a directory that has nothing in it; `Ok` otherwise, too. Blocks.
pub(crate) fn remove_if_empty(directory: &Utf8Path) -> io::Result<()> {
    match std::fs::remove_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => gone(removed),
    }
}

/// What an administrator mounted there, as `pct mount` does with the tree that all sandboxes share, is not to be deleted.
fn unmount(directory: &Utf8Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(
            directory.as_std_path(),
            UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        ) {
            // Mounted more than once: again.
            Ok(()) => {}
            // Nothing is mounted there.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            // Only root can have mounted anything.
            Err(Errno::PERM) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> (tempfile::TempDir, Utf8PathBuf, Directory) {
        let temp = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(temp.path()).unwrap().to_owned();
        let directory = Directory::new(&base, "nxtsb-1", &SandboxId("1".into()));
        (temp, base.join("nxtsb-1"), directory)
    }

    #[test]
    fn is_made_twice_and_removed_twice() {
        let (_temp, path, directory) = setting();
        assert!(!directory.is_ours());
        directory.make().unwrap();
        std::fs::write(directory.config(), "").unwrap();
        std::fs::create_dir(path.join("apparmor")).unwrap();
        directory.make().unwrap();
        assert!(directory.is_ours());
        directory.remove().unwrap();
        assert!(!path.exists());
        directory.remove().unwrap();
    }

    #[test]
    fn an_unmarked_empty_one_is_ours() {
        let (_temp, path, directory) = setting();
        std::fs::create_dir(&path).unwrap();
        assert!(directory.is_ours());
        directory.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn somebody_elses_is_left_alone() {
        let (_temp, path, directory) = setting();
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("config"), "theirs").unwrap();
        assert!(
            directory
                .make()
                .unwrap_err()
                .to_string()
                .contains("not of nexcage")
        );
        directory.remove().unwrap();
        assert_eq!(
            std::fs::read_to_string(path.join("config")).unwrap(),
            "theirs"
        );
        // Nor one that another sandbox's marker is in.
        std::os::unix::fs::symlink("2", path.join(MARKER)).unwrap();
        assert!(!directory.is_ours());
    }

    #[test]
    fn one_of_many_claims_it() {
        let (_temp, path, _) = setting();
        let base = path.parent().unwrap();
        // As after a crash between the two steps of another.
        for round in 0..50 {
            let name = format!("{round}");
            if round % 2 == 0 {
                std::fs::create_dir(base.join(&name)).unwrap();
            }
            let winners = std::thread::scope(|scope| {
                let claims = (0..4).map(|thread| {
                    let directory = Directory::new(base, &name, &SandboxId(thread.to_string()));
                    scope.spawn(move || directory.claim().unwrap())
                });
                let claims: Vec<_> = claims.collect();
                let won = claims.into_iter().map(|claim| claim.join().unwrap());
                won.filter(|won| *won).count()
            });
            assert_eq!(winners, 1);
        }
    }

    #[test]
    fn what_is_given_up_loses_the_marker_and_nothing_else() {
        let (_temp, path, directory) = setting();
        assert!(directory.claim().unwrap());
        assert!(directory.claim().unwrap());
        directory.give_up().unwrap();
        assert!(!path.exists());
        assert!(directory.claim().unwrap());
        std::fs::write(directory.config(), "theirs").unwrap();
        directory.give_up().unwrap();
        assert!(!directory.is_marked());
        assert!(directory.config().exists());
        directory.give_up().unwrap();
        assert!(!directory.claim().unwrap());
    }

    #[test]
    fn what_is_mounted_in_it_is_not_deleted() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root mounts");
            return;
        }
        let (_temp, path, directory) = setting();
        let shared = path.parent().unwrap().join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::write(shared.join("file"), "").unwrap();
        directory.make().unwrap();
        let rootfs = path.join("rootfs");
        std::fs::create_dir(&rootfs).unwrap();
        rustix::mount::mount_bind(shared.as_std_path(), rootfs.as_std_path()).unwrap();
        directory.remove().unwrap();
        assert!(!path.exists());
        assert!(shared.join("file").exists());
    }
}
