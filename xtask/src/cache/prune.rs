//! Removing what was not used for long.

use std::cmp::Reverse;
use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use super::in_use::Unused;
use super::inputs::is_of_kind;
use crate::files::remove_tree;

/// Things of one kind that are kept: the newest, and another one for those who go to and fro between branches.
const KEPT: usize = 2;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Not even the second is kept when it was not used for so long.
const UNUSED: Duration = DAY.saturating_mul(14);

/// A thing that may be removed.
#[derive(Debug, PartialEq, Eq)]
struct Old {
    dir: Utf8PathBuf,
    last_used: SystemTime,
}

/// Removes old things of a kind, but none that is in use. The caller sees to it that this is done by one at a time.
pub(super) fn prune(root: &Utf8Path, kind: &str, now: SystemTime) -> anyhow::Result<()> {
    let trash = root.join(format!(".{kind}-trash"));
    // Of somebody who was killed meanwhile.
    remove_tree(&trash)?;
    for old in choose(list(root, kind)?, now) {
        let unused = Unused::take(&old.dir).with_context(|| format!("cannot lock {}", old.dir))?;
        // Somebody may have used it after it was listed.
        if let Some(unused) = unused
            && unused.last_used().is_ok_and(|used| used == old.last_used)
        {
            println!(
                "removing {}, which was not used for {}",
                old.dir,
                since(old.last_used, now)
            );
            // In one step, so that what has its name is always whole.
            fs::rename(&old.dir, &trash)
                .with_context(|| format!("cannot rename {} to {trash}", old.dir))?;
            remove_tree(&trash)?;
        }
    }
    Ok(())
}

/// All things of a kind.
fn list(root: &Utf8Path, kind: &str) -> anyhow::Result<Vec<Old>> {
    let cannot = || format!("cannot read {root}");
    let mut found = Vec::new();
    for entry in root.read_dir_utf8().with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        if !is_of_kind(entry.file_name(), kind) {
            continue;
        }
        match entry.metadata().and_then(|meta| meta.modified()) {
            Ok(last_used) => found.push(Old {
                dir: entry.into_path(),
                last_used,
            }),
            // `node clean` is at work, too.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", entry.path()));
            }
        }
    }
    Ok(found)
}

/// Those that are too many, and those that are too old.
fn choose(mut found: Vec<Old>, now: SystemTime) -> Vec<Old> {
    found.sort_by_key(|old| Reverse(old.last_used));
    let mut kept = 0..KEPT;
    found.retain(|old| kept.next().is_none() || age(old.last_used, now) > UNUSED);
    found
}

/// None at all for what was used in the future: the clock was set back.
fn age(last_used: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(last_used).unwrap_or_default()
}

fn since(last_used: SystemTime, now: SystemTime) -> String {
    let age = age(last_used, now);
    match age.as_secs() / DAY.as_secs() {
        0 => format!("{} minutes", age.as_secs() / 60),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::alone;
    use super::super::in_use::InUse;
    use super::*;

    /// A cache with things of these ages in days; the name of each begins with its age.
    fn cache(kind: &str, ages: &[u32], now: SystemTime) -> (tempfile::TempDir, Utf8PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(temporary.path()).unwrap().to_owned();
        for age in ages {
            thing(&root, kind, *age, now);
        }
        (temporary, root)
    }

    fn thing(root: &Utf8Path, kind: &str, age: u32, now: SystemTime) -> Utf8PathBuf {
        let dir = root.join(format!("{kind}-{age:016}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("content"), "").unwrap();
        used(&dir, age, now);
        dir
    }

    fn used(dir: &Utf8Path, age: u32, now: SystemTime) {
        let dir = fs::File::open(dir).unwrap();
        dir.set_modified(now - DAY * age).unwrap();
    }

    fn ages(root: &Utf8Path, kind: &str) -> Vec<u32> {
        let mut ages: Vec<u32> = (list(root, kind).unwrap().iter())
            .map(|old| {
                old.dir.as_str()[old.dir.as_str().len() - 16..]
                    .parse()
                    .unwrap()
            })
            .collect();
        ages.sort_unstable();
        ages
    }

    #[test]
    fn two_are_kept_and_none_that_is_two_weeks_old() {
        let now = SystemTime::now();
        for (there, left) in [
            (&[0][..], &[0][..]),
            (&[0, 13], &[0, 13]),
            (&[0, 15], &[0]),
            (&[0, 3, 13, 15, 400], &[0, 3]),
            (&[], &[]),
        ] {
            let (_temporary, root) = cache("node-disk", there, now);
            prune(&root, "node-disk", now).unwrap();
            assert_eq!(ages(&root, "node-disk"), left, "of {there:?}");
        }
    }

    #[test]
    fn what_is_in_use_stays_however_old_it_seems() {
        let _alone = alone();
        let now = SystemTime::now();
        let (_temporary, root) = cache("images", &[0, 1, 2], now);
        let old = thing(&root, "images", 40, now);
        let user = InUse::take(&old).unwrap().unwrap();
        used(&old, 40, now);
        prune(&root, "images", now).unwrap();
        assert_eq!(ages(&root, "images"), [0, 1, 40]);
        drop(user);
        prune(&root, "images", now).unwrap();
        assert_eq!(ages(&root, "images"), [0, 1]);
    }

    #[test]
    fn other_kinds_and_files_stay() {
        let now = SystemTime::now();
        let (_temporary, root) = cache("node-disk", &[0, 30], now);
        thing(&root, "node", 30, now);
        thing(&root, "bench-node-disk", 30, now);
        let others = [".node-disk-draft", "node-disk-notes", "nodes"];
        for name in others {
            fs::create_dir(root.join(name)).unwrap();
            used(&root.join(name), 30, now);
        }
        prune(&root, "node-disk", now).unwrap();
        assert_eq!(ages(&root, "node-disk"), [0]);
        assert_eq!(ages(&root, "node"), [30]);
        assert_eq!(ages(&root, "bench-node-disk"), [30]);
        assert!(others.iter().all(|name| root.join(name).is_dir()));
    }

    #[test]
    fn a_removal_that_was_broken_off_is_finished() {
        let now = SystemTime::now();
        let (_temporary, root) = cache("go", &[0, 20], now);
        fs::create_dir_all(root.join(".go-trash/half/removed")).unwrap();
        prune(&root, "go", now).unwrap();
        assert!(!root.join(".go-trash").exists());
        assert_eq!(ages(&root, "go"), [0]);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_old() {
        let now = SystemTime::now();
        let (_temporary, root) = cache("go", &[0, 13], now);
        prune(&root, "go", now - DAY * 20).unwrap();
        assert_eq!(ages(&root, "go"), [0, 13]);
    }
}
