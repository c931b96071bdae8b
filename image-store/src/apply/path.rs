//! Names in a layer: where an entry belongs, and which names are marks rather than names.

use super::error::ApplyError;

/// Prefix of the name of a whiteout (OCI image spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Prefix of the marks of aufs; all but the opaque mark mean nothing here.
const AUFS: &[u8] = b".wh..wh.";
/// Name of the mark that hides everything lower layers have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Components of a path below the root of the layer. Never `.`, `..`, empty, or with a slash or NUL.
pub(super) type Components = Vec<Vec<u8>>;

/// What an entry's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The root directory itself.
    Root,
    /// `name` in the directory `parent`.
    Entry { parent: Components, name: Vec<u8> },
    /// What lower layers have as `name` in `parent` is gone.
    Whiteout { parent: Components, name: Vec<u8> },
    /// What lower layers have in this directory is gone.
    Opaque(Components),
    /// A mark of aufs that means nothing to others.
    Ignored,
}

/// Splits a name as tar writes it. Absolute names belong below the root.
pub(super) fn components(raw: &[u8], max_depth: usize) -> Result<Components, ApplyError> {
    if raw.is_empty() {
        return Err(ApplyError::refused(raw, "the name is empty"));
    }
    if raw.contains(&0) {
        return Err(ApplyError::refused(raw, "the name contains a NUL byte"));
    }
    let mut path = Components::new();
    for component in raw.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                return Err(ApplyError::refused(
                    raw,
                    "the name contains .., which layers must not use",
                ));
            }
            name if path.len() < max_depth => path.push(name.to_vec()),
            _ => {
                return Err(ApplyError::Limit {
                    entry: super::error::shown(raw),
                    limit: u64::try_from(max_depth).unwrap_or(u64::MAX),
                    what: "path components",
                });
            }
        }
    }
    Ok(path)
}

/// What the entry named `raw` asks for.
pub(super) fn place(raw: &[u8], max_depth: usize) -> Result<Place, ApplyError> {
    let mut parent = components(raw, max_depth)?;
    if parent.iter().any(|c| c.starts_with(AUFS) && c != OPAQUE) {
        return Ok(Place::Ignored);
    }
    let Some(name) = parent.pop() else {
        return Ok(Place::Root);
    };
    if parent.iter().any(|c| c.starts_with(WHITEOUT)) {
        return Err(ApplyError::refused(
            raw,
            "a directory has a name that is reserved for whiteouts",
        ));
    }
    if name == OPAQUE {
        return Ok(Place::Opaque(parent));
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Place::Entry { parent, name }),
        Some(b"" | b"." | b"..") => Err(ApplyError::refused(raw, "the whiteout names no file")),
        Some(hidden) => Ok(Place::Whiteout {
            name: hidden.to_vec(),
            parent,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(path: &[&str]) -> Components {
        path.iter().map(|c| c.as_bytes().to_vec()).collect()
    }

    #[test]
    fn names_are_read_as_tar_writes_them() {
        let entry = |parent: &[&str], name: &str| Place::Entry {
            parent: parts(parent),
            name: name.as_bytes().to_vec(),
        };
        for (raw, want) in [
            ("./", Place::Root),
            ("/", Place::Root),
            ("a", entry(&[], "a")),
            ("./a/b", entry(&["a"], "b")),
            ("/etc//passwd", entry(&["etc"], "passwd")),
            ("usr/lib/", entry(&["usr"], "lib")),
            (".wh..wh..opq", Place::Opaque(parts(&[]))),
            ("a/.wh..wh..opq", Place::Opaque(parts(&["a"]))),
            (
                "a/.wh.b",
                Place::Whiteout {
                    parent: parts(&["a"]),
                    name: b"b".to_vec(),
                },
            ),
            (".wh..wh.plnk/1.2", Place::Ignored),
            ("a/.wh..wh.orph", Place::Ignored),
        ] {
            assert_eq!(place(raw.as_bytes(), 8).unwrap(), want, "{raw}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for raw in [
            "",
            "..",
            "a/../b",
            "/..",
            "a/..",
            ".wh.",
            ".wh...",
            ".wh..",
            "a/.wh.b/c",
            "a\0b",
            "1/2/3/4/5/6/7/8/9",
        ] {
            assert!(place(raw.as_bytes(), 8).is_err(), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn components_are_always_plain(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(path) = components(&raw, 16) {
                prop_assert!(path.len() <= 16);
                for c in path {
                    prop_assert!(!c.is_empty() && c != b"." && c != b"..");
                    prop_assert!(!c.contains(&b'/') && !c.contains(&0));
                }
            }
        }
    }
}
