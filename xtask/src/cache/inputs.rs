//! What decides what a thing will be, as a few digits of a hash.

use std::fs;

use anyhow::Context as _;
use camino::Utf8Path;
use sha2::{Digest as _, Sha256};

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

    /// The name of a thing of this kind.
    pub(super) fn name(self, kind: &str) -> String {
        let hash: String = hex(&self.0.finalize()).chars().take(HASH).collect();
        format!("{kind}-{hash}")
    }
}

/// Whether a name is `<kind>-<hash>`.
pub(super) fn is_of_kind(name: &str, kind: &str) -> bool {
    let hash = name
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('-'));
    hash.is_some_and(|hash| hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Lower case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        assert!(is_of_kind("node-disk-0e3d524fc8fbe7fe", "node-disk"));
        assert!(is_of_kind(&Inputs::new("r").name("node-disk"), "node-disk"));
        assert!(!is_of_kind("node-disk-0e3d524fc8fbe7fe", "node"));
        assert!(!is_of_kind("images-24611a5eaa2c38b", "images"));
        assert!(!is_of_kind(".images-24611a5eaa2c38b6", "images"));
    }

    #[test]
    fn inputs_do_not_run_into_each_other() {
        let one = Inputs::new("r").text("ab").text("c").name("k");
        let two = Inputs::new("r").text("a").text("bc").name("k");
        assert_ne!(one, two);
        assert_eq!(one, Inputs::new("r").text("ab").text("c").name("k"));
    }
}
