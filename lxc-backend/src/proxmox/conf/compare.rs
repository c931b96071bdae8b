//! What somebody changed in a configuration.

use std::collections::BTreeSet;

use nexcage_sandbox::Edit;

use super::grammar::{Conf, Section};

/// Keys that Proxmox sets and removes by itself: the lock is there while it works on the container.
const PASSING: &[&str] = &["lock"];

/// Differences between the main sections of what was written and what is there, by key. Order does not count, nor does what is
/// pending, nor snapshots.
pub(crate) fn compare(written: &str, found: &str) -> Vec<Edit> {
    let (written, found) = (Conf::parse(written).main, Conf::parse(found).main);
    let mut keys: BTreeSet<&str> = BTreeSet::from(["description"]);
    for section in [&written, &found] {
        let (own, lxc) = section.names();
        keys.extend(own.chain(lxc));
    }
    let edits = keys.into_iter().filter_map(|key| {
        let (ours, theirs) = (value(&written, key), value(&found, key));
        let edited = ours != theirs && !PASSING.contains(&key);
        edited.then(|| Edit {
            key: key.to_owned(),
            ours,
            theirs,
        })
    });
    edits.collect()
}

/// The value of a key; all of them, where LXC takes more than one.
fn value(section: &Section, key: &str) -> Option<String> {
    if key == "description" {
        let text = section.description.join("\n");
        return (!text.is_empty()).then_some(text);
    }
    if let Some(value) = section.get(key) {
        return Some(value.to_owned());
    }
    let values: Vec<&str> = section.lxc(key).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "#default/web\narch: amd64\nlock: create\nmemory: 64\nlxc.idmap: u 0 1 2\nlxc.idmap: g 0 1 2\n";

    fn edits(found: &str) -> Vec<(String, Option<String>, Option<String>)> {
        let edits = compare(WRITTEN, found).into_iter();
        edits.map(|e| (e.key, e.ours, e.theirs)).collect()
    }

    #[test]
    fn as_proxmox_writes_it_again_nothing_is_edited() {
        let again = "#default/web\nlxc.idmap = u 0 1 2\nmemory:  64\nlxc.idmap: g 0 1 2\narch: amd64\n\n[snap]\nmemory: 1\n";
        assert_eq!(edits(again), []);
        assert_eq!(edits(WRITTEN), []);
        assert_eq!(edits(&WRITTEN.replace("create", "backup")), []);
    }

    #[test]
    fn edits_have_what_was_there_and_what_is() {
        let some = |text: &str| Some(text.to_owned());
        let found = "#theirs\narch: amd64\nmemory: 128\nonboot: 1\nlxc.idmap: u 0 1 2\n";
        let expected = [
            (
                "description".to_owned(),
                some("default/web"),
                some("theirs"),
            ),
            (
                "lxc.idmap".to_owned(),
                some("u 0 1 2, g 0 1 2"),
                some("u 0 1 2"),
            ),
            ("memory".to_owned(), some("64"), some("128")),
            ("onboot".to_owned(), None, some("1")),
        ];
        assert_eq!(edits(found), expected);
        let gone = edits("");
        let keys: Vec<_> = gone.iter().map(|(key, ..)| key.as_str()).collect();
        assert_eq!(keys, ["arch", "description", "lxc.idmap", "memory"]);
        assert!(
            gone.iter()
                .all(|(_, ours, theirs)| ours.is_some() && theirs.is_none())
        );
    }
}
