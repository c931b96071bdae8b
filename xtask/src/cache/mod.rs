//! Things that are made once, kept outside of the tree, and named by what they were made from.
//!
//! Each is a directory `<kind>-<hash>`. Several chores may be at work at the same time, of several checkouts, too: one of them makes a thing,
//! and who wants the same meanwhile waits. When one was made, old ones of its kind go ([`prune`]), unless somebody uses
//! them ([`in_use`]).

mod in_use;
mod inputs;
mod prune;

use std::fs;
use std::time::SystemTime;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use in_use::InUse;
pub(crate) use in_use::lend;
pub(crate) use inputs::Inputs;
pub(crate) use inputs::hex;

/// Where everything is kept: `$XDG_CACHE_HOME/nexcage`, `~/.cache/nexcage`, or `/var/cache/nexcage`.
pub(crate) fn root() -> Utf8PathBuf {
    let env = |name| {
        std::env::var(name)
            .ok()
            .filter(|value| value.starts_with('/'))
    };
    match (env("XDG_CACHE_HOME"), env("HOME")) {
        (Some(cache), _) => Utf8PathBuf::from(cache).join("nexcage"),
        (None, Some(home)) => Utf8PathBuf::from(home).join(".cache/nexcage"),
        (None, None) => Utf8PathBuf::from("/var/cache/nexcage"),
    }
}

/// The directory `<kind>-<hash of inputs>`, made by `make` if it is not there yet. Nobody removes it before this chore ends.
///
/// `make` fills a directory of another name that is renamed when it is done, so what is there under
/// its right name is whole. What a chore that was broken off has left is removed.
pub(crate) fn directory(
    kind: &str,
    inputs: Inputs,
    make: impl FnOnce(&Utf8Path) -> anyhow::Result<()>,
) -> anyhow::Result<Utf8PathBuf> {
    let root = root();
    let done = root.join(inputs.name(kind));
    get(&root, kind, &done, make)?.until_the_end();
    Ok(done)
}

fn get(
    root: &Utf8Path,
    kind: &str,
    done: &Utf8Path,
    make: impl FnOnce(&Utf8Path) -> anyhow::Result<()>,
) -> anyhow::Result<InUse> {
    if let Some(used) = InUse::take(done)? {
        return Ok(used);
    }
    let _alone = lock(root, kind)?;
    if let Some(used) = InUse::take(done)? {
        return Ok(used);
    }
    let drafts = format!(".{kind}-draft");
    remove_drafts(root, &drafts)?;
    // A name of our own: what a killed chore had started may still write into its draft.
    let draft = root.join(format!("{drafts}-{}", std::process::id()));
    fill(&draft, done, make)?;
    let used = InUse::take(done)?;
    let used = used.with_context(|| format!("{done} was removed as soon as it was made"))?;
    if let Err(error) = prune::prune(root, kind, SystemTime::now()) {
        // What was asked for is there.
        eprintln!("old things stay in the cache: {error:#}");
    }
    Ok(used)
}

fn fill(
    draft: &Utf8Path,
    done: &Utf8Path,
    make: impl FnOnce(&Utf8Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    fs::create_dir_all(draft).with_context(|| format!("cannot make {draft}"))?;
    let made = make(draft).and_then(|()| {
        fs::rename(draft, done).with_context(|| format!("cannot rename {draft} to {done}"))
    });
    if made.is_err() {
        remove(draft)?;
    }
    made
}

/// Removes what chores have left that were killed.
fn remove_drafts(root: &Utf8Path, prefix: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot read {root}");
    for entry in root.read_dir_utf8().with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        if entry.file_name().starts_with(prefix) {
            remove(entry.path())?;
        }
    }
    Ok(())
}

/// Held while something of this kind is made; it goes with its process.
fn lock(root: &Utf8Path, kind: &str) -> anyhow::Result<fs::File> {
    let path = root.join(format!(".lock-{kind}"));
    fs::create_dir_all(root)
        .and_then(|()| fs::File::create(&path))
        .and_then(|file| file.lock().map(|()| file))
        .with_context(|| format!("cannot lock {path}"))
}

fn remove(dir: &Utf8Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {dir}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use anyhow::bail;

    use super::*;

    fn cache() -> (tempfile::TempDir, Utf8PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(temporary.path()).unwrap().join("cache");
        (temporary, root)
    }

    #[test]
    fn chores_that_want_the_same_at_one_time_make_it_once() {
        let (_temporary, root) = cache();
        let done = root.join("k-1");
        let made = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let used = get(&root, "k", &done, |draft| {
                        made.fetch_add(1, Ordering::SeqCst);
                        std::thread::park_timeout(Duration::from_millis(50));
                        Ok(fs::write(draft.join("content"), "whole")?)
                    });
                    assert_eq!(fs::read_to_string(done.join("content")).unwrap(), "whole");
                    drop(used.unwrap());
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let (_temporary, root) = cache();
        let done = root.join("k-1");
        let left = root.join(".k-draft-7");
        fs::create_dir_all(left.join("of a chore that was killed")).unwrap();
        let failed = get(&root, "k", &done, |draft| {
            assert_eq!(draft.read_dir_utf8().unwrap().count(), 0);
            assert!(draft != left && !left.exists());
            fs::write(draft.join("half"), "")?;
            bail!("no more")
        });
        assert_eq!(failed.err().unwrap().to_string(), "no more");
        let names = root.read_dir_utf8().unwrap().flatten();
        let names: Vec<_> = names.map(|e| e.file_name().to_owned()).collect();
        assert_eq!(names, [".lock-k"]);
    }

    #[test]
    fn a_use_is_noted_and_making_another_removes_the_old() {
        let _alone = in_use::tests::alone();
        let (_temporary, root) = cache();
        let of = |name: &str| root.join(Inputs::new(name).name("k"));
        let make = |name: &str| get(&root, "k", &of(name), |_| Ok(())).unwrap();
        let two_months_ago = SystemTime::now() - Duration::from_secs(60 * 24 * 60 * 60);
        let forget = |name: &str| {
            let dir = fs::File::open(of(name)).unwrap();
            dir.set_modified(two_months_ago).unwrap();
        };
        for name in ["unused", "used"] {
            drop(make(name));
            forget(name);
        }
        drop(get(&root, "k", &of("used"), |_| bail!("it is there")).unwrap());
        drop(make("new"));
        assert!(of("new").exists() && of("used").exists());
        assert!(!of("unused").exists());
    }
}
