//! The directory of an LXC container of ours: `<lxc_path>/<name>`.
//!
//! It has a marker, a symbolic link whose target is the sandbox's id. Links are made in one step, so a crash leaves either an
//! empty directory or a marked one. What is neither belongs to somebody else, and is never touched, whatever its name.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_sandbox::SandboxId;

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
        match std::fs::create_dir(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.is_ours() => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(io::Error::new(
                    e.kind(),
                    format!("{} exists and is not of nexcage; move it away", self.path),
                ));
            }
            made => made?,
        }
        nexcage_failpoint::hit("lxc.directory-made");
        match std::os::unix::fs::symlink(&self.id.0, self.path.join(MARKER)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Whether nexcage made it for this sandbox. Blocks.
    pub(crate) fn is_ours(&self) -> bool {
        match std::fs::read_link(self.path.join(MARKER)) {
            Ok(id) => id.as_os_str() == self.id.0.as_str(),
            // Made and not marked yet: nothing can be lost with it.
            Err(_) => {
                std::fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none())
            }
        }
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
                std::fs::remove_dir_all(entry.path())?;
            } else {
                gone(std::fs::remove_file(entry.path()))?;
            }
        }
        gone(std::fs::remove_file(self.path.join(MARKER)))?;
        gone(std::fs::remove_dir(&self.path))
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
}
