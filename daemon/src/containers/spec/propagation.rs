//! Whether what is mounted later can reach where it was asked to.

use std::borrow::Cow;

use camino::{Utf8Path, Utf8PathBuf};

use crate::containers::config::{ContainerSpec, Propagation};
use crate::cri::InvalidField;

/// Refuses propagation from sources that have none, which would otherwise be lost without a word.
///
/// `mountinfo` is the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)), `sources` what
/// [`SpecInput::mount_sources`](super::SpecInput) is.
///
/// # Errors
///
/// The first mount whose source is not shared, or is neither shared nor a slave.
pub(crate) fn check_propagation(
    config: &ContainerSpec,
    sources: &[Utf8PathBuf],
    mountinfo: &str,
) -> Result<(), InvalidField> {
    for (n, (mount, source)) in config.mounts.iter().zip(sources).enumerate() {
        let needed: &[&str] = match mount.propagation {
            Propagation::Private => continue,
            Propagation::HostToContainer => &["shared:", "master:"],
            Propagation::Bidirectional => &["shared:"],
        };
        let Some((point, fields)) = mount_of(source, mountinfo) else {
            continue;
        };
        if !fields
            .iter()
            .any(|field| needed.iter().any(|prefix| field.starts_with(prefix)))
        {
            let problem = format!(
                "{source} is on the mount {point}, which is private; on the host: \
                 mount --make-rshared {point}"
            );
            return Err(InvalidField::invalid(
                format!("config.mounts[{n}].propagation"),
                problem,
            ));
        }
    }
    Ok(())
}

/// The type of the file system that a path is on, by the text of `/proc/self/mountinfo`.
pub(crate) fn file_system_of<'a>(path: &Utf8Path, mountinfo: &'a str) -> Option<&'a str> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let point = unescaped(line.split(' ').nth(4)?);
        let (_, file_system) = line.split_once(" - ")?;
        let kind = file_system.split(' ').next()?;
        path.starts_with(&*point).then(|| (point.len(), kind))
    });
    mounts
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind)
}

/// The mount that a path is on, and its optional fields. Of several at one place, the last covers the others.
fn mount_of<'a>(path: &Utf8Path, mountinfo: &'a str) -> Option<(Cow<'a, str>, Vec<&'a str>)> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let point = unescaped(words.nth(4)?);
        let optional = words.skip(1).take_while(|word| *word != "-").collect();
        path.starts_with(&*point).then_some((point, optional))
    });
    mounts.max_by_key(|(point, _)| point.len())
}

/// Space, tab, newline and backslash stand in octal.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let codes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    Cow::Owned(codes.iter().fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn file_systems_are_told_by_name() {
        let mountinfo = "21 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
                         30 21 0:40 / /mnt/my\\040share rw - fuse.sshfs host:/ rw\n";
        let at = |path: &str| file_system_of(path.into(), mountinfo);
        assert_eq!(at("/srv"), Some("ext4"));
        assert_eq!(at("/mnt/my share/x"), Some("fuse.sshfs"));
    }
    use crate::containers::config::{Mount, MountSource};

    const MOUNTINFO: &str = "21 1 8:1 / / rw,relatime - ext4 /dev/vda rw\n\
        22 21 0:5 / /shared rw shared:1 - tmpfs t rw\n\
        23 21 0:6 / /slave rw master:1 - tmpfs t rw\n\
        24 22 0:7 / /shared/private rw - tmpfs t rw\n\
        25 21 0:8 / /with\\040space rw shared:2 master:3 - tmpfs t rw\n\
        26 21 0:9 / /twice rw shared:4 - tmpfs t rw\n\
        27 21 0:9 / /twice rw - tmpfs t rw\n";

    fn check(source: &str, propagation: Propagation) -> Result<(), String> {
        let mount = Mount {
            container_path: "/x".into(),
            source: MountSource::HostPath(source.into()),
            readonly: false,
            recursive_read_only: false,
            propagation,
            selinux_relabel: false,
            mapping: None,
            options: Vec::new(),
        };
        let config = ContainerSpec {
            mounts: vec![mount],
            ..ContainerSpec::default()
        };
        check_propagation(&config, &[source.into()], MOUNTINFO).map_err(|e| e.to_string())
    }

    #[test]
    fn only_shared_mounts_reach_the_host() {
        use Propagation::{Bidirectional, HostToContainer, Private};
        for (source, to_container, both) in [
            ("/srv", false, false),
            ("/shared/a/b", true, true),
            ("/sharedness", false, false),
            ("/slave", true, false),
            ("/shared/private/x", false, false),
            ("/with space/x", true, true),
            ("/twice", false, false),
        ] {
            assert_eq!(check(source, Private), Ok(()), "{source}");
            assert_eq!(
                check(source, HostToContainer).is_ok(),
                to_container,
                "{source}"
            );
            assert_eq!(check(source, Bidirectional).is_ok(), both, "{source}");
        }
        assert_eq!(
            check("/srv", Bidirectional).unwrap_err(),
            "config.mounts[0].propagation: /srv is on the mount /, which is private; \
             on the host: mount --make-rshared /"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(?s).{0,200}", path in "/.{0,20}") {
            let _ = mount_of(path.as_str().into(), &text);
        }
    }
}
