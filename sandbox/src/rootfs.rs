//! The root filesystem that all sandboxes share.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::Program;
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// The init of every sandbox, inside.
pub const INIT: &str = "/catatonit";

/// Mount points and directories that programs expect.
const DIRECTORIES: &[&str] = &["dev", "etc", "proc", "run", "sys", "tmp"];

/// The tree could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct RootfsError {
    /// What was being done.
    pub doing: &'static str,
    /// Where.
    pub path: Utf8PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Makes the tree at `dir` (catatonit and mount points, owned by root), or makes it again when catatonit changed or
/// something is missing. Appears at once, complete; sandboxes that run keep the tree they were started with. One
/// caller at a time.
///
/// # Errors
///
/// [`RootfsError`]; what was at `dir` is still there then.
pub async fn ensure_rootfs(dir: &Utf8Path, catatonit: &Program) -> Result<(), RootfsError> {
    let (dir, catatonit) = (dir.to_owned(), catatonit.path().to_owned());
    let failed = dir.clone();
    let done = tokio::task::spawn_blocking(move || ensure(&dir, &catatonit)).await;
    done.unwrap_or_else(|e| Err(fail("make", &failed)(e.into())))
}

fn fail(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> RootfsError {
    move |source| RootfsError {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn ensure(dir: &Utf8Path, catatonit: &Utf8Path) -> Result<(), RootfsError> {
    if is_complete(dir, catatonit).map_err(fail("examine", dir))? {
        return Ok(());
    }
    let new = Utf8PathBuf::from(format!("{dir}.new"));
    remove_tree(&new)?;
    build(&new, catatonit).map_err(fail("make", &new))?;
    let flags = match dir.try_exists().map_err(fail("examine", dir))? {
        true => RenameFlags::EXCHANGE,
        false => RenameFlags::NOREPLACE,
    };
    renameat_with(CWD, new.as_std_path(), CWD, dir.as_std_path(), flags)
        .map_err(|e| fail("put in place", dir)(e.into()))?;
    // After an exchange this is the old one.
    remove_tree(&new)
}

fn is_complete(dir: &Utf8Path, catatonit: &Utf8Path) -> io::Result<bool> {
    if !DIRECTORIES.iter().all(|name| dir.join(name).is_dir()) {
        return Ok(false);
    }
    let copy = inside(dir);
    let Ok(metadata) = copy.symlink_metadata() else {
        return Ok(false);
    };
    Ok(metadata.is_file()
        && metadata.permissions().mode() & 0o777 == 0o755
        && same_content(&copy, catatonit)?)
}

fn build(dir: &Utf8Path, catatonit: &Utf8Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Modes are set, not left to the umask: the sandbox's root is nobody here.
    let readable = || Permissions::from_mode(0o755);
    std::fs::create_dir(dir)?;
    std::fs::set_permissions(dir, readable())?;
    for name in DIRECTORIES {
        let path = dir.join(name);
        std::fs::create_dir(&path)?;
        std::fs::set_permissions(path, readable())?;
    }
    let copy = inside(dir);
    std::fs::copy(catatonit, &copy)?;
    std::fs::set_permissions(&copy, readable())?;
    // A crash must not leave an empty init behind a complete-looking tree.
    File::open(&copy)?.sync_all()
}

fn inside(dir: &Utf8Path) -> Utf8PathBuf {
    dir.join(INIT.trim_start_matches('/'))
}

fn same_content(a: &Utf8Path, b: &Utf8Path) -> io::Result<bool> {
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let read = |path: &Utf8Path| -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(path)?.read_to_end(&mut content)?;
        Ok(content)
    };
    Ok(read(a)? == read(b)?)
}

fn remove_tree(dir: &Utf8Path) -> Result<(), RootfsError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail("remove", dir)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// A directory, and a program whose content can change.
    fn setting(content: &str) -> (tempfile::TempDir, Utf8PathBuf, Program) {
        let temp = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(temp.path()).unwrap();
        let program = base.join("catatonit");
        std::fs::write(&program, content).unwrap();
        std::fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
        let dir = base.join("a/rootfs");
        (temp, dir, Program::at(program).unwrap())
    }

    #[tokio::test]
    async fn is_made_once_and_again_when_catatonit_changes() {
        let (temp, dir, catatonit) = setting("one");
        ensure_rootfs(&dir, &catatonit).await.unwrap();
        let inode = || dir.metadata().unwrap().ino();
        let first = inode();
        let copy = dir.join("catatonit");
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "one");
        assert_eq!(copy.metadata().unwrap().mode() & 0o777, 0o755);
        assert!(dir.join("proc").is_dir());

        ensure_rootfs(&dir, &catatonit).await.unwrap();
        assert_eq!(inode(), first);

        // Who has the old tree open keeps it.
        let old = File::open(&copy).unwrap();
        std::fs::write(temp.path().join("catatonit"), "two").unwrap();
        ensure_rootfs(&dir, &catatonit).await.unwrap();
        assert_ne!(inode(), first);
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "two");
        assert_eq!(io::read_to_string(old).unwrap(), "one");
        assert_eq!(std::fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn is_repaired_after_a_crash_or_by_hand() {
        let (_temp, dir, catatonit) = setting("one");
        std::fs::create_dir_all(format!("{dir}.new/half")).unwrap();
        ensure_rootfs(&dir, &catatonit).await.unwrap();
        std::fs::remove_dir(dir.join("sys")).unwrap();
        ensure_rootfs(&dir, &catatonit).await.unwrap();
        assert!(dir.join("sys").is_dir());
        assert!(!Utf8PathBuf::from(format!("{dir}.new")).exists());
    }
}
