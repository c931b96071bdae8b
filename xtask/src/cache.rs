//! Things that are made once, kept outside of the tree, and named by what they were made from. Of each kind the two last used
//! are kept.

use std::fs;
use std::time::SystemTime;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest as _, Sha256};

/// Things of one kind that are kept.
const KEPT: usize = 2;

/// Digits of a hash in a name.
const HASH: usize = 16;

/// Everything that decides what a thing will be.
pub(crate) struct Inputs(Sha256);

impl Inputs {
    /// Begins with a name for the way it is made; change it when the way changes.
    pub(crate) fn new(recipe: &str) -> Self {
        Self(Sha256::new()).text(recipe)
    }

    /// Adds a text: an option, a version.
    pub(crate) fn text(mut self, text: &str) -> Self {
        // The length goes first, so that "ab", "c" is not "a", "bc".
        self.0.update(text.len().to_le_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Adds a file's name and content.
    pub(crate) fn file(mut self, path: &Utf8Path) -> anyhow::Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {path}"))?;
        self = self.text(path.file_name().unwrap_or_default());
        self.0.update(content.len().to_le_bytes());
        self.0.update(&content);
        Ok(self)
    }

    fn hash(self) -> String {
        hex(&self.0.finalize()).chars().take(HASH).collect()
    }
}

/// Lower case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

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

/// The directory `<name>-<hash of inputs>`, made by `make` if it is not there yet.
///
/// `make` fills a directory of another name that is renamed when it is done, so what is there under
/// its right name is whole. Who wants the same meanwhile waits; what a chore that was broken off has left is removed.
pub(crate) fn directory(
    name: &str,
    inputs: Inputs,
    make: impl FnOnce(&Utf8Path) -> anyhow::Result<()>,
) -> anyhow::Result<Utf8PathBuf> {
    let done = root().join(format!("{name}-{}", inputs.hash()));
    if done.is_dir() {
        touch(&done)?;
        return Ok(done);
    }
    let _lock = lock(name)?;
    if done.is_dir() {
        return Ok(done);
    }
    let draft = root().join(format!(".{name}-draft"));
    remove(&draft)?;
    fs::create_dir_all(&draft).with_context(|| format!("cannot make {draft}"))?;
    let made = make(&draft).and_then(|()| {
        fs::rename(&draft, &done).with_context(|| format!("cannot rename {draft} to {done}"))
    });
    if made.is_err() {
        remove(&draft)?;
    }
    made?;
    prune(name)?;
    Ok(done)
}

/// Notes that it was used.
fn touch(dir: &Utf8Path) -> anyhow::Result<()> {
    fs::File::open(dir)
        .and_then(|dir| dir.set_modified(SystemTime::now()))
        .with_context(|| format!("cannot note that {dir} was used"))
}

/// Removes all but the last used things of a kind. More than one is kept, for those who go to and fro between branches.
fn prune(name: &str) -> anyhow::Result<()> {
    let cache = root();
    let mut found = Vec::new();
    for entry in cache
        .read_dir_utf8()
        .with_context(|| format!("cannot read {cache}"))?
    {
        let entry = entry.with_context(|| format!("cannot read {cache}"))?;
        if is_of_kind(entry.file_name(), name) {
            let used = entry.metadata().and_then(|meta| meta.modified());
            found.push((used.unwrap_or(SystemTime::UNIX_EPOCH), entry.into_path()));
        }
    }
    found.sort();
    found.reverse();
    for (_, old) in found.iter().skip(KEPT) {
        println!("removing {old}, which was not used for long");
        fs::remove_dir_all(old).with_context(|| format!("cannot remove {old}"))?;
    }
    Ok(())
}

/// Whether a directory's name is `<kind>-<hash>`.
fn is_of_kind(name: &str, kind: &str) -> bool {
    let hash = name
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('-'));
    hash.is_some_and(|hash| hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Held while something of this name is made; it goes with its process.
fn lock(name: &str) -> anyhow::Result<fs::File> {
    let path = root().join(format!(".lock-{name}"));
    fs::create_dir_all(root())
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
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        assert!(is_of_kind("node-disk-0e3d524fc8fbe7fe", "node-disk"));
        assert!(!is_of_kind("node-disk-0e3d524fc8fbe7fe", "node"));
        assert!(!is_of_kind("images-24611a5eaa2c38b", "images"));
        assert!(!is_of_kind(".images-24611a5eaa2c38b6", "images"));
    }

    #[test]
    fn inputs_do_not_run_into_each_other() {
        let one = Inputs::new("r").text("ab").text("c").hash();
        let two = Inputs::new("r").text("a").text("bc").hash();
        assert_ne!(one, two);
        assert_eq!(one, Inputs::new("r").text("ab").text("c").hash());
    }
}
