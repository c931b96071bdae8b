//! Files that killed cruns leave.
//!
//! Before all else, crun mounts its own program read-only on an empty file `crun.XXXXXX`, opens it there, takes mount and file away
//! and goes on as what it has opened, which no container can write to. One that is killed meanwhile leaves the file, or
//! the file with the mount on it, which keeps the directory from being removed.

use std::io;
use std::path::Path;

use camino::Utf8Path;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

/// Tells crun in which directory that file is to be; otherwise it is in /tmp.
pub(crate) const VARIABLE: &str = "_LIBCONTAINER_STATEDIR";

const PREFIX: &str = "crun.";

/// Letters and digits that mkstemp(3) puts behind it.
const RANDOM: usize = 6;

/// Removes these files from a directory, with what is mounted on them. `Ok` when there is no such directory. A crun that is at work just now
/// is not harmed: without the mount, it goes on from a copy in memory.
pub(crate) async fn sweep(directory: &Utf8Path) -> io::Result<()> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || sweep_now(&directory)).await?
}

fn sweep_now(directory: &Utf8Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let is_cruns = entry.file_name().to_str().is_some_and(is_cruns);
        if is_cruns && entry.file_type()?.is_file() {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn is_cruns(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|random| {
        random.len() == RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

fn remove(file: &Path) -> io::Result<()> {
    loop {
        match unmount(file, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // There may be more than one.
            Ok(()) => {}
            // Nothing is mounted there, or, with EPERM, cannot be: only root mounts.
            Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => break,
            Err(e) => return Err(e.into()),
        }
    }
    let removed = match std::fs::symlink_metadata(file) {
        // crun never writes to it.
        Ok(meta) if meta.len() > 0 => Ok(()),
        Ok(_) => std::fs::remove_file(file),
        Err(e) => Err(e),
    };
    match removed {
        // A crun was at work, and has removed its own.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_empty_files_of_crun_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        for (name, text) in [
            ("crun.Ab3xYz", ""),
            ("crun.000000", ""),
            ("crun.log", ""),
            ("crun.Ab3x-z", ""),
            ("crun.full00", "not crun's"),
            ("mycrun.Ab3xYz", ""),
        ] {
            std::fs::write(path.join(name), text).unwrap();
        }
        std::fs::create_dir(path.join("crun.dirdir")).unwrap();
        sweep(path).await.unwrap();
        let mut left: Vec<_> = (path.read_dir_utf8().unwrap())
            .map(|entry| entry.unwrap().file_name().to_owned())
            .collect();
        left.sort();
        let stays = [
            "crun.Ab3x-z",
            "crun.dirdir",
            "crun.full00",
            "crun.log",
            "mycrun.Ab3xYz",
        ];
        assert_eq!(left, stays);
        sweep(&path.join("none")).await.unwrap();
    }
}
