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
#[cfg(test)]
pub(crate) use in_use::tests::alone;
pub(crate) use inputs::Inputs;
pub(crate) use inputs::hex;

use crate::files::remove_tree;

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
/// `make` fills a directory of another name that is renamed when it is done and on the disk, so what is there under
/// its right name is whole, also after this machine has lost its power. What a chore that was broken off has left is removed.
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

/// The directory `<kind>-<hash of inputs>` if somebody has made it. Nobody removes it before this chore ends.
pub(crate) fn find(kind: &str, inputs: Inputs) -> anyhow::Result<Option<Utf8PathBuf>> {
    let done = root().join(inputs.name(kind));
    let found = InUse::take(&done)?;
    Ok(found.map(|used| {
        used.until_the_end();
        done
    }))
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
    if let Err(error) = remove_drafts(root, &drafts) {
        // What its owner has started may still be at work there; the next chore that makes something removes it.
        eprintln!("a draft stays in the cache: {error:#}");
    }
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
    let made = make(draft).and_then(|()| publish(draft, done));
    if made.is_err()
        && let Err(error) = remove_tree(draft)
    {
        eprintln!("a draft stays in the cache: {error:#}");
    }
    made
}

/// Gives a thing its right name when all of it is on the disk. Otherwise the name may be there after a power cut, and files below
/// it be empty.
fn publish(draft: &Utf8Path, done: &Utf8Path) -> anyhow::Result<()> {
    // One call for tens of thousands of files.
    fs::File::open(draft)
        .and_then(|draft| Ok(rustix::fs::syncfs(draft)?))
        .with_context(|| format!("cannot write {draft} to the disk"))?;
    fs::rename(draft, done).with_context(|| format!("cannot rename {draft} to {done}"))
}

/// Removes what chores have left that were killed.
fn remove_drafts(root: &Utf8Path, prefix: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot read {root}");
    for entry in root.read_dir_utf8().with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        if entry.file_name().starts_with(prefix) {
            remove_tree(entry.path())?;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use anyhow::bail;

    use super::*;
    use crate::run::mortal_command;

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

    /// Tells the other half of [`what_a_killed_chore_was_making_is_made_anew`] where the cache is.
    const HALF: &str = "NEXCAGE_TEST_HALF_A_CHORE";

    #[test]
    #[ignore = "a chore that is killed by another test"]
    fn half_a_chore() {
        let root = Utf8PathBuf::from(std::env::var(HALF).unwrap());
        let _ = get(&root, "k", &root.join("k-1"), |draft| {
            fs::write(draft.join("content"), "half")?;
            loop {
                std::thread::park();
            }
        });
    }

    #[test]
    fn what_a_killed_chore_was_making_is_made_anew() {
        let _alone = alone();
        let (_temporary, root) = cache();
        let done = root.join("k-1");
        let mut chore = mortal_command(std::env::current_exe().unwrap())
            .args(["--exact", "cache::tests::half_a_chore", "--ignored"])
            .env(HALF, &root)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let half = root.join(format!(".k-draft-{}", chore.id()));
        let begun = Instant::now();
        while !fs::read(half.join("content")).is_ok_and(|content| content == b"half") {
            assert!(begun.elapsed() < Duration::from_secs(60), "no {half}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let other = fs::File::open(root.join(".lock-k")).unwrap();
        assert!(other.try_lock().is_err(), "two may make it at one time");
        assert!(InUse::take(&done).unwrap().is_none());

        chore.kill().unwrap();
        chore.wait().unwrap();
        assert!(InUse::take(&done).unwrap().is_none());
        let made = get(&root, "k", &done, |draft| {
            assert!(draft != half && !half.exists());
            Ok(fs::write(draft.join("content"), "whole")?)
        });
        drop(made.unwrap());
        assert_eq!(fs::read_to_string(done.join("content")).unwrap(), "whole");
    }

    #[test]
    fn a_use_is_noted_and_making_another_removes_the_old() {
        let _alone = alone();
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
