//! Reading `cgroup_parent`.

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_systemd::slice_path;

/// Where pods go for which nobody named a parent.
const DEFAULT_SLICE: &str = "nexcage.slice";
const DEFAULT_DIRECTORY: &str = "nexcage";

/// The cgroup that a pod's own is made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    path: Utf8PathBuf,
}

impl Parent {
    /// As kubelet's systemd driver names it: the path of a slice (`/kubepods.slice/kubepods-burstable.slice`) or its unit
    /// name alone. The error is a reason for people.
    pub(crate) fn slice_of(cgroup_parent: &str) -> Result<Self, String> {
        let given = match cgroup_parent.trim_matches('/') {
            "" => DEFAULT_SLICE,
            given => given,
        };
        let name = given.rsplit('/').next().unwrap_or(given);
        if !name.ends_with(".slice") {
            return Err(
                "with systemd as init it must be a slice, such as /kubepods.slice; set cgroupDriver: systemd in \
                 kubelet's configuration"
                    .to_owned(),
            );
        }
        let path = slice_path(name).map_err(|e| e.to_string())?;
        if given.contains('/') && path != given {
            return Err(format!("systemd has {name} at /{path}"));
        }
        Ok(Self { path })
    }

    /// As kubelet's cgroupfs driver names it: any path below the mount point. The name of a slice alone means the path
    /// that systemd would have it at. The error is a reason for people.
    pub(crate) fn directory_of(cgroup_parent: &str) -> Result<Self, String> {
        let given = cgroup_parent.trim_matches('/');
        if given.is_empty() {
            return Ok(Self {
                path: DEFAULT_DIRECTORY.into(),
            });
        }
        if !given.contains('/') && given.ends_with(".slice") {
            return Self::slice_of(given);
        }
        for component in given.split('/') {
            if matches!(component, "" | "." | "..") {
                return Err(format!("it has the component {component:?}"));
            }
            if let Some(bad) = component.chars().find(|&c| !is_safe(c)) {
                return Err(format!(
                    "it contains {bad:?}; only ASCII letters, digits and : _ . \\ - @ + = are allowed"
                ));
            }
            if component.len() > 255 {
                return Err("a component of it is longer than 255 bytes".to_owned());
            }
        }
        Ok(Self { path: given.into() })
    }

    /// Path below the cgroup mount point.
    pub(crate) fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Unit name of the slice; `-.slice` for the root.
    pub(crate) fn slice(&self) -> &str {
        self.path.file_name().unwrap_or("-.slice")
    }
}

/// What may stand in a path that ends up in an LXC configuration and in a shell's single quotes.
fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '\\' | '-' | '@' | '+' | '=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slice(parent: &str) -> Result<String, String> {
        Parent::slice_of(parent).map(|p| format!("{} in {}", p.slice(), p.path()))
    }

    fn directory(parent: &str) -> Result<String, String> {
        Parent::directory_of(parent).map(|p| p.path.into_string())
    }

    #[test]
    fn slices_by_path_and_by_name() {
        assert_eq!(slice("").unwrap(), "nexcage.slice in nexcage.slice");
        let expected = "kubepods-besteffort.slice in kubepods.slice/kubepods-besteffort.slice";
        assert_eq!(
            slice("/kubepods.slice/kubepods-besteffort.slice").unwrap(),
            expected
        );
        assert_eq!(slice("kubepods-besteffort.slice").unwrap(), expected);
        assert_eq!(slice("/-.slice").unwrap(), "-.slice in ");
    }

    #[test]
    fn no_slices() {
        assert!(
            slice("/kubepods/pod1")
                .unwrap_err()
                .contains("cgroupDriver")
        );
        assert!(
            slice("/other.slice/a-b.slice")
                .unwrap_err()
                .contains("a.slice/a-b.slice")
        );
        assert!(slice("/a--b.slice").is_err());
    }

    #[test]
    fn directories() {
        assert_eq!(directory("").unwrap(), "nexcage");
        assert_eq!(directory("/").unwrap(), "nexcage");
        assert_eq!(
            directory("/kubepods/burstable/pod1-2").unwrap(),
            "kubepods/burstable/pod1-2"
        );
        assert_eq!(directory("a-b.slice").unwrap(), "a.slice/a-b.slice");
        assert_eq!(
            directory("/a.slice/a-b.slice/").unwrap(),
            "a.slice/a-b.slice"
        );
        for bad in [
            "/a/../b", "/a//b", "/a/./b", "/a b", "/a'b", "/a\nb", "/ü", "/a$b",
        ] {
            assert!(directory(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_below_the_root(parent in ".{0,40}") {
            for parsed in [Parent::slice_of(&parent), Parent::directory_of(&parent)].into_iter().flatten() {
                prop_assert!(parsed.path.is_relative());
                prop_assert!(!parsed.path.as_str().contains('\''));
                prop_assert!(!parsed.path.as_str().split('/').any(|c| c == ".." || c == "."));
            }
        }
    }
}
