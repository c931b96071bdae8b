//! Who a container runs as, by the image's own `/etc/passwd` and `/etc/group`.
//!
//! Both files come from an image, so both are hostile: they are opened below the root filesystem and nowhere
//! else, whatever symbolic links say, only if they are regular files, and only up to a size. Lines that make no sense
//! are skipped, as the C library does. [`resolve`] reads files and blocks.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use camino::Utf8Path;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::config::{RunAs, RunAsUser, SecurityContext, SupplementalGroupsPolicy};

/// Largest file that is read, in bytes. Distributions ship a few kilobytes.
const FILE_MAX: u64 = 4 << 20;

/// The ids of a container's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvedUser {
    /// User.
    pub(crate) uid: u32,
    /// Primary group.
    pub(crate) gid: u32,
    /// All groups: the primary one first, no duplicates.
    pub(crate) additional_gids: Vec<u32>,
    /// Home directory; `/` for a user that `/etc/passwd` does not have.
    pub(crate) home: String,
}

/// The user cannot be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// `/etc/passwd` has no such name.
    #[error("user {name:?} is not in the image's /etc/passwd")]
    NoUser {
        /// The name.
        name: String,
    },
    /// `/etc/group` has no such name.
    #[error("group {name:?} is not in the image's /etc/group")]
    NoGroup {
        /// The name.
        name: String,
    },
    /// The image's `USER` is not of the form user or user:group.
    #[error("the image's user {user:?} is neither user nor user:group")]
    Malformed {
        /// As the image has it.
        user: String,
    },
    /// The image has something else there.
    #[error("the image's {path} is not a regular file")]
    NotRegular {
        /// Which file.
        path: &'static str,
    },
    /// Too large to be true.
    #[error("the image's {path} is larger than {FILE_MAX} bytes")]
    TooLarge {
        /// Which file.
        path: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read {path} of the image")]
    Read {
        /// Which file.
        path: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

impl UserError {
    /// Whether the request or the image is wrong, and not this machine.
    pub(crate) fn is_invalid(&self) -> bool {
        !matches!(self, Self::Read { .. })
    }
}

/// Finds out who a container runs as.
///
/// `rootfs` is the mounted root filesystem, `image_user` the `User` of the image's configuration, which counts when the
/// request names nobody. A user by number need not exist; its group is then 0, as with Docker and containerd.
///
/// # Errors
///
/// [`UserError`]; a name that does not exist is one.
pub(crate) fn resolve(
    rootfs: &Utf8Path,
    image_user: &str,
    security: &SecurityContext,
) -> Result<ResolvedUser, UserError> {
    let passwd = read_file(rootfs, "/etc/passwd")?;
    let group = read_file(rootfs, "/etc/group")?;
    resolve_in(&passwd, &group, image_user, security)
}

/// [`resolve`], given the contents of both files.
fn resolve_in(
    passwd: &str,
    group: &str,
    image_user: &str,
    security: &SecurityContext,
) -> Result<ResolvedUser, UserError> {
    let (user, wanted_group) = match &security.run_as {
        Some(RunAs { user, group }) => (user.clone(), group.map(GroupArg::Gid)),
        None => parse_image_user(image_user)?,
    };
    let entry = match &user {
        RunAsUser::Uid(uid) => users(passwd).find(|entry| entry.uid == *uid),
        RunAsUser::Name(name) => {
            let found = users(passwd).find(|entry| entry.name == name);
            Some(found.ok_or_else(|| UserError::NoUser { name: name.clone() })?)
        }
    };
    let uid = match (&entry, user) {
        (Some(entry), _) => entry.uid,
        (None, RunAsUser::Uid(uid)) => uid,
        (None, RunAsUser::Name(name)) => return Err(UserError::NoUser { name }),
    };
    let gid = match wanted_group {
        Some(GroupArg::Gid(gid)) => gid,
        Some(GroupArg::Name(name)) => {
            groups(group)
                .find(|entry| entry.name == name)
                .ok_or(UserError::NoGroup { name })?
                .gid
        }
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };

    let mut additional_gids = vec![gid];
    if security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge
        && let Some(entry) = &entry
    {
        let of_image = groups(group).filter(|g| g.members.split(',').any(|m| m == entry.name));
        additional_gids.extend(of_image.map(|g| g.gid));
    }
    additional_gids.extend(&security.supplemental_groups);
    let mut seen = std::collections::HashSet::new();
    additional_gids.retain(|gid| seen.insert(*gid));

    let home = entry
        .map(|entry| entry.home)
        .filter(|home| home.starts_with('/'));
    Ok(ResolvedUser {
        uid,
        gid,
        additional_gids,
        home: home.unwrap_or("/").to_owned(),
    })
}

/// A group by number or by name.
#[derive(Debug, PartialEq, Eq)]
enum GroupArg {
    Gid(u32),
    Name(String),
}

/// Reads an image's `USER`: `uid`, `name`, `uid:gid`, `uid:name`, `name:gid` or `name:name`. Empty is root.
fn parse_image_user(text: &str) -> Result<(RunAsUser, Option<GroupArg>), UserError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let malformed = || UserError::Malformed {
        user: text.to_owned(),
    };
    if group.is_some_and(|group| group.is_empty() || group.contains(':')) {
        return Err(malformed());
    }
    let user = match (user, id(user)) {
        ("", _) if group.is_none() => RunAsUser::Uid(0),
        ("", _) => return Err(malformed()),
        (_, Some(uid)) => RunAsUser::Uid(uid),
        (name, None) => RunAsUser::Name(name.to_owned()),
    };
    let group = group.map(|group| match id(group) {
        Some(gid) => GroupArg::Gid(gid),
        None => GroupArg::Name(group.to_owned()),
    });
    Ok((user, group))
}

/// A user or group id. The highest number means "no id" to the kernel (setreuid(2)).
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|id| *id != u32::MAX)
}

/// A line of passwd(5).
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        let home = fields.nth(1).unwrap_or_default();
        Some(User {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        let members = fields.next().unwrap_or_default();
        Some(Group { name, gid, members })
    })
}

/// Reads a file below `rootfs`; a missing one is empty. Bytes that are not UTF-8 are replaced: they stand in comments.
fn read_file(rootfs: &Utf8Path, path: &'static str) -> Result<String, UserError> {
    let fail = |source: std::io::Error| UserError::Read { path, source };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(rootfs.as_std_path(), flags, Mode::empty())
        .map_err(|errno| fail(errno.into()))?;
    // O_PATH first: opening a FIFO would wait, and opening a device may do things.
    let found = rustix::fs::openat2(
        &root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let found = match found {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(fail(errno.into())),
    };
    let stat = rustix::fs::fstat(&found).map_err(|errno| fail(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(UserError::NotRegular { path });
    }
    let file = reopen(&found).map_err(|errno| fail(errno.into()))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(UserError::TooLarge { path });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens for reading what an `O_PATH` descriptor stands for.
fn reopen(found: &impl AsFd) -> Result<File, Errno> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", found.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(link, flags, Mode::empty()).map(File::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use camino::Utf8PathBuf;
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        www-data:x:33:33::/var/www:/usr/sbin/nologin\n\
        # a comment\n\
        broken:x:notanumber:1\n\
        user:x:1000:1000::/home/user\n\
        homeless:x:1001:1001\n";
    const GROUP: &str = "root:x:0:\nwww-data:x:33:\nstaff:x:50:user,www-data\n\
        user:x:1000:\nextra:x:50000:user\nnouser:x:60:use\n";

    fn by_image(user: &str) -> Result<ResolvedUser, UserError> {
        resolve_in(PASSWD, GROUP, user, &SecurityContext::default())
    }

    fn user(uid: u32, gid: u32, gids: &[u32], home: &str) -> ResolvedUser {
        ResolvedUser {
            uid,
            gid,
            additional_gids: gids.to_vec(),
            home: home.into(),
        }
    }

    fn run_as(user: RunAsUser, group: Option<u32>) -> SecurityContext {
        SecurityContext {
            run_as: Some(RunAs { user, group }),
            ..SecurityContext::default()
        }
    }

    #[test]
    fn every_form_of_an_images_user() {
        for (text, expected) in [
            ("", user(0, 0, &[0], "/root")),
            ("0", user(0, 0, &[0], "/root")),
            ("1002", user(1002, 0, &[0], "/")),
            ("1000", user(1000, 1000, &[1000, 50, 50000], "/home/user")),
            ("www-data", user(33, 33, &[33, 50], "/var/www")),
            ("1003:staff", user(1003, 50, &[50], "/")),
            ("www-data:staff", user(33, 50, &[50], "/var/www")),
            ("www-data:77", user(33, 77, &[77, 50], "/var/www")),
            ("homeless", user(1001, 1001, &[1001], "/")),
        ] {
            assert_eq!(by_image(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        assert!(matches!(by_image("nobody"), Err(UserError::NoUser { name }) if name == "nobody"));
        assert!(matches!(by_image("broken"), Err(UserError::NoUser { .. })));
        assert!(matches!(by_image("0:nope"), Err(UserError::NoGroup { name }) if name == "nope"));
        // Neither a number that the kernel knows nor a name that exists.
        assert!(matches!(
            by_image("4294967295"),
            Err(UserError::NoUser { .. })
        ));
        for text in [":", "0:", ":0", "a:b:c"] {
            assert!(
                matches!(by_image(text), Err(UserError::Malformed { .. })),
                "{text}"
            );
        }
        let by_name = run_as(RunAsUser::Name("ghost".into()), None);
        assert!(matches!(
            resolve_in(PASSWD, GROUP, "", &by_name),
            Err(UserError::NoUser { .. })
        ));
    }

    #[test]
    fn the_request_comes_before_the_image() {
        let got = resolve_in(
            PASSWD,
            GROUP,
            "www-data",
            &run_as(RunAsUser::Uid(1000), Some(7)),
        );
        assert_eq!(got.unwrap(), user(1000, 7, &[7, 50, 50000], "/home/user"));
        let got = resolve_in(
            PASSWD,
            GROUP,
            "",
            &run_as(RunAsUser::Name("user".into()), None),
        );
        assert_eq!(
            got.unwrap(),
            user(1000, 1000, &[1000, 50, 50000], "/home/user")
        );
    }

    #[test]
    fn strict_leaves_out_the_images_groups() {
        let security = SecurityContext {
            supplemental_groups: vec![1234, 1000],
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict,
            ..run_as(RunAsUser::Uid(1000), None)
        };
        let got = resolve_in(PASSWD, GROUP, "", &security).unwrap();
        assert_eq!(got.additional_gids, [1000, 1234]);
    }

    fn rootfs() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("rootfs")).unwrap();
        std::fs::create_dir_all(path.join("etc")).unwrap();
        (dir, path)
    }

    #[test]
    fn an_image_without_the_files_has_numbers_only() {
        let (_dir, rootfs) = rootfs();
        let none = SecurityContext::default();
        assert_eq!(
            resolve(&rootfs, "5:6", &none).unwrap(),
            user(5, 6, &[6], "/")
        );
        assert!(matches!(
            resolve(&rootfs, "www-data", &none),
            Err(UserError::NoUser { .. })
        ));
    }

    #[test]
    fn links_do_not_lead_out_of_the_image() {
        let (dir, rootfs) = rootfs();
        std::fs::write(dir.path().join("passwd"), "evil:x:0:0::/\n").unwrap();
        symlink("../../../../../passwd", rootfs.join("etc/passwd")).unwrap();
        symlink("/passwd", rootfs.join("etc/group")).unwrap();
        let none = SecurityContext::default();
        assert!(matches!(
            resolve(&rootfs, "evil", &none),
            Err(UserError::NoUser { .. })
        ));
        // A link within the image is fine, absolute or not.
        std::fs::write(rootfs.join("passwd"), "good:x:7:8::/\n").unwrap();
        assert_eq!(resolve(&rootfs, "good", &none).unwrap().uid, 7);
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting() {
        let (_dir, rootfs) = rootfs();
        let none = SecurityContext::default();
        let passwd = rootfs.join("etc/passwd");
        rustix::fs::mkfifoat(rustix::fs::CWD, passwd.as_std_path(), Mode::RUSR).unwrap();
        assert!(matches!(
            resolve(&rootfs, "0", &none),
            Err(UserError::NotRegular { .. })
        ));
        std::fs::remove_file(&passwd).unwrap();
        symlink("passwd", &passwd).unwrap();
        assert!(matches!(
            resolve(&rootfs, "0", &none),
            Err(UserError::Read { .. })
        ));
    }

    #[test]
    fn huge_files_are_refused() {
        let (_dir, rootfs) = rootfs();
        let file = File::create(rootfs.join("etc/group")).unwrap();
        file.set_len(FILE_MAX + 1).unwrap();
        let refused = resolve(&rootfs, "0", &SecurityContext::default());
        assert!(matches!(
            refused,
            Err(UserError::TooLarge { path: "/etc/group" })
        ));
    }

    proptest! {
        #[test]
        fn no_content_panics(passwd in "(?s).{0,200}", group in "(?s).{0,200}", user in ".{0,12}") {
            let _ = resolve_in(&passwd, &group, &user, &SecurityContext::default());
        }

        #[test]
        fn every_well_formed_user_is_found(
            name in "[a-z_][a-z0-9_-]{0,15}", uid in 0..u32::MAX, gid in 0..u32::MAX,
        ) {
            let passwd = format!("{name}:x:{uid}:{gid}::/home/{name}:/bin/sh\n");
            let got = resolve_in(&passwd, "", &name, &SecurityContext::default()).unwrap();
            prop_assert_eq!(got, user(uid, gid, &[gid], &format!("/home/{name}")));
        }
    }
}
