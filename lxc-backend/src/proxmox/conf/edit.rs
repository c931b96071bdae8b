//! Changing keys of a configuration without touching anything else in it.

use super::grammar::{Line, line};

/// Gives keys of the main section these values, or removes them; every other line stays as it is, byte by byte.
///
/// A key that was there twice is there once afterwards; one that was not is put behind the last of Proxmox's.
pub(crate) fn edit(text: &str, changes: &[(&str, Option<String>)]) -> String {
    let mut missing: Vec<_> = changes
        .iter()
        .filter_map(|(key, value)| Some((*key, value.as_deref()?)))
        .collect();
    let mut lines: Vec<String> = Vec::new();
    let mut rest = text.split_inclusive('\n');
    // Where a new key goes: behind the last key, or behind the description.
    let mut place = 0;
    let mut tail = None;
    for text in rest.by_ref() {
        match line(text.trim_end_matches('\n')) {
            Line::Section(_) => {
                tail = Some(text);
                break;
            }
            Line::Key(key, _) => {
                if changes.iter().any(|(changed, _)| *changed == key) {
                    let at = missing.iter().position(|(changed, _)| *changed == key);
                    let Some(at) = at else { continue };
                    let (key, value) = missing.remove(at);
                    lines.push(written(key, value));
                } else {
                    lines.push(text.to_owned());
                }
                place = lines.len();
            }
            Line::Description(_) if place == lines.len() => {
                lines.push(text.to_owned());
                place = lines.len();
            }
            _ => lines.push(text.to_owned()),
        }
    }
    if !missing.is_empty() && place > 0 && !lines[place - 1].ends_with('\n') {
        lines[place - 1].push('\n');
    }
    let new = missing.iter().map(|(key, value)| written(key, value));
    lines.splice(place..place, new);
    lines.extend(tail.into_iter().chain(rest).map(str::to_owned));
    lines.concat()
}

/// `key: value` and a line break; one in the value would be another key, and becomes a space.
fn written(key: &str, value: &str) -> String {
    format!("{key}: {}\n", value.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::super::grammar::Conf;
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str =
        "#a\n#b\narch: amd64\nmemory: 1\nweird line\nmemory: 2\nlxc.a: x\n\n[snap]\nmemory: 9\n";

    fn set(key: &str, value: &str) -> String {
        edit(TEXT, &[(key, Some(value.to_owned()))])
    }

    #[test]
    fn only_what_is_named_changes() {
        assert_eq!(
            set("memory", "3"),
            "#a\n#b\narch: amd64\nmemory: 3\nweird line\nlxc.a: x\n\n[snap]\nmemory: 9\n"
        );
        assert_eq!(
            set("cores", "1\nlxc.b: y"),
            "#a\n#b\narch: amd64\nmemory: 1\nweird line\nmemory: 2\ncores: 1 lxc.b: y\nlxc.a: x\n\n[snap]\nmemory: 9\n"
        );
        assert_eq!(
            edit(TEXT, &[("memory", None), ("cores", None)]),
            "#a\n#b\narch: amd64\nweird line\nlxc.a: x\n\n[snap]\nmemory: 9\n"
        );
        assert_eq!(edit(TEXT, &[]), TEXT);
    }

    #[test]
    fn a_file_without_keys_or_without_its_last_line_break() {
        let new = [("cores", Some("1".to_owned()))];
        assert_eq!(edit("", &new), "cores: 1\n");
        assert_eq!(edit("#a", &new), "#a\ncores: 1\n");
        assert_eq!(edit("arch: amd64", &new), "arch: amd64\ncores: 1\n");
        assert_eq!(edit("cores: 2", &new), "cores: 1\n");
        assert_eq!(edit("[snap]\ncores: 2", &new), "cores: 1\n[snap]\ncores: 2");
    }

    proptest! {
        #[test]
        fn the_rest_of_any_file_stays(text in "(#x|memory: 1|swap: 2|cores:3|lxc\\.a = b|\\[snap\\]|junk|\r|\n){0,30}", value in "[a-z0-9]\\PC{0,10}[\n]?\\PC{0,10}") {
            let before = Conf::parse(&text);
            let changes = [("memory", Some(value.clone())), ("swap", None)];
            let edited = edit(&text, &changes);
            let after = Conf::parse(&edited);
            let value = value.replace(['\n', '\r'], " ");
            let expected = Conf::parse(&format!("memory: {value}\n"));
            prop_assert_eq!(after.main.get("memory"), expected.main.get("memory"));
            prop_assert_eq!(after.main.get("swap"), None);
            prop_assert_eq!(after.main.get("cores"), before.main.get("cores"));
            prop_assert_eq!(&after.main.description, &before.main.description);
            prop_assert!(after.main.lxc("lxc.a").eq(before.main.lxc("lxc.a")));
            prop_assert_eq!(&after.others, &before.others);
            // Once more changes nothing.
            prop_assert_eq!(edit(&edited, &changes), edited);
        }
    }
}
