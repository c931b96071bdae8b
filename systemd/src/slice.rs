//! Where a slice lives.

use camino::{Utf8Path, Utf8PathBuf};

/// Not the name of a slice unit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not the name of a slice ({reason}); an example of one: kubepods-burstable.slice"
)]
pub struct SliceError {
    /// The name as given.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The cgroup of a slice below the cgroup root, as systemd.slice(5) names it: every dash is a
/// level, so `a-b.slice` lives in `a.slice/a-b.slice`; `-.slice` is the root itself (an
/// empty path).
///
/// # Errors
///
/// [`SliceError`] for what systemd would not take as the name of a slice.
pub fn slice_path(name: &str) -> Result<Utf8PathBuf, SliceError> {
    let fail = |reason| SliceError {
        name: name.to_owned(),
        reason,
    };
    let stem = name
        .strip_suffix(".slice")
        .ok_or_else(|| fail("it does not end in .slice"))?;
    if stem == "-" {
        return Ok(Utf8PathBuf::new());
    }
    // UNIT_NAME_MAX is 256 with the terminating zero.
    if name.len() > 255 {
        return Err(fail("it is longer than 255 bytes"));
    }
    if !stem.chars().all(is_unit_char) {
        return Err(fail(
            "only ASCII letters, digits and : _ . \\ - are allowed in it",
        ));
    }
    let mut path = Utf8PathBuf::new();
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(fail("there is nothing before, after or between its dashes"));
        }
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        path.push(Utf8Path::new(&format!("{prefix}.slice")));
    }
    Ok(path)
}

/// Characters of a unit name, systemd.unit(5), without `@`: slices have no instances.
fn is_unit_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '\\' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_dash_is_a_level() {
        assert_eq!(
            slice_path("kubepods-burstable-pod1_2.slice").unwrap(),
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"
        );
        assert_eq!(slice_path("test.slice").unwrap(), "test.slice");
        assert_eq!(slice_path("-.slice").unwrap(), "");
    }

    #[test]
    fn refuses_what_is_no_slice() {
        for bad in [
            "",
            ".slice",
            "a",
            "a.scope",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "a/b.slice",
            "a b.slice",
            "ü.slice",
        ] {
            assert!(slice_path(bad).is_err(), "{bad}");
        }
        assert!(slice_path(&format!("{}.slice", "a".repeat(250))).is_err());
    }

    proptest! {
        #[test]
        fn the_last_component_is_the_name(parts in prop::collection::vec("[a-z0-9_:.]{1,8}", 1..6)) {
            let name = format!("{}.slice", parts.join("-"));
            let path = slice_path(&name).unwrap();
            prop_assert_eq!(path.components().count(), parts.len());
            prop_assert_eq!(path.file_name(), Some(name.as_str()));
            for (child, parent) in path.ancestors().zip(path.ancestors().skip(1)) {
                if parent.as_str().is_empty() { continue }
                let stem = |p: &Utf8Path| p.file_name().unwrap().strip_suffix(".slice").unwrap().to_owned();
                let inside = format!("{}-", stem(parent));
                let nested = stem(child).starts_with(&inside);
                prop_assert!(nested);
            }
        }

        #[test]
        fn never_panics_and_never_climbs(name in ".{0,40}") {
            if let Ok(path) = slice_path(&name) {
                prop_assert!(path.is_relative());
                prop_assert!(!path.as_str().split('/').any(|c| c == ".."));
            }
        }
    }
}
