//! Mounting a container's volumes below its root, in the mount namespace of its monitor: copies of mounts, with ids mapped if the
//! configuration says so.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::conf::{IdMap, Volume};
use crate::died::{Died, Outcome, io_died};

/// A range of ids: `u` or `g`, the first within, the first without, how many.
pub(super) type Range = (char, u32, u32, u32);

/// What a container in a user namespace gets unless its configuration says otherwise.
const RANGES: [Range; 2] = [('u', 0, 100_000, 65_536), ('g', 0, 100_000, 65_536)];

/// How the ids of a container are mapped; empty without a user namespace.
pub(super) fn ranges(conf: &crate::conf::Section) -> Vec<Range> {
    let own = conf.lxc.iter().filter(|(key, _)| key == "lxc.idmap");
    let own: Vec<_> = own.filter_map(|(_, text)| range(text)).collect();
    match (own.is_empty(), conf.is("unprivileged")) {
        (false, _) => own,
        (true, true) => RANGES.to_vec(),
        (true, false) => Vec::new(),
    }
}

/// `u 0 100000 65536`.
fn range(text: &str) -> Option<Range> {
    let parts: Vec<_> = text.split_whitespace().collect();
    let [kind, inside, outside, count] = parts[..] else {
        return None;
    };
    let kind = match kind {
        "u" => 'u',
        "g" => 'g',
        _ => return None,
    };
    Some((
        kind,
        inside.parse().ok()?,
        outside.parse().ok()?,
        count.parse().ok()?,
    ))
}

/// Mounts a volume's directory. `root` is where the root file system is or will be.
pub(super) fn insert(
    key: &str,
    volume: &Volume,
    source: &Utf8Path,
    root: &Utf8Path,
    ranges: &[Range],
) -> Outcome {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(CWD, source.as_std_path(), flags);
    let copy = copy.map_err(|e| io_died("can't open", source)(e.into()))?;
    set_attributes(&copy, volume, ranges).map_err(|e| Died::new(format!("mount_setattr: {e}")))?;
    let target = match key {
        "rootfs" => openat(
            CWD,
            root.as_std_path(),
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .map_err(|e| io_died("can't open", root)(e.into()))?,
        _ => walk(root, &volume.at)?,
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&copy, c"", &target, c"", flags)
        .map_err(|e| io_died("move_mount", &volume.at)(e.into()))
}

/// Opens a directory below the root, without following links, and makes what is missing.
fn walk(root: &Utf8Path, path: &str) -> Outcome<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, root.as_std_path(), flags, Mode::empty())
        .map_err(|e| io_died("can't open", root)(e.into()))?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let below = flags | OFlags::NOFOLLOW;
        let found = match openat(&dir, name, below, Mode::empty()) {
            Err(Errno::NOENT) => {
                let made = mkdirat(&dir, name, Mode::from_raw_mode(0o755));
                // Root has no id in a mapped file system, and cannot make anything there.
                made.map_err(|_| {
                    Died::new(format!(
                        "failed to create path: /{path}: No such file or directory"
                    ))
                })?;
                openat(&dir, name, below, Mode::empty())
            }
            found => found,
        };
        dir = found.map_err(|e| io_died("failed to open", path)(e.into()))?;
    }
    Ok(dir)
}

fn set_attributes(mount: &OwnedFd, volume: &Volume, ranges: &[Range]) -> io::Result<()> {
    let mut attributes = libc::mount_attr {
        attr_set: 0,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    if volume.read_only {
        attributes.attr_set |= libc::MOUNT_ATTR_RDONLY;
    }
    let userns = match &volume.idmap {
        Some(idmap) if !ranges.is_empty() => Some(user_namespace(&on_disk(idmap, ranges))?),
        _ => None,
    };
    if let Some(userns) = &userns {
        attributes.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attributes.userns_fd = u64::try_from(userns.as_raw_fd()).map_err(io::Error::other)?;
    }
    if attributes.attr_set == 0 {
        return Ok(());
    }
    mount_setattr(mount.as_fd(), &attributes)
}

fn mount_setattr(mount: BorrowedFd<'_>, attributes: &libc::mount_attr) -> io::Result<()> {
    // SAFETY: the path is a C string, the structure is a `mount_attr` of the size given, both live until the call returns, and
    // the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// From ids on disk to ids of the host, for ids that have one in the container.
fn on_disk(idmap: &IdMap, ranges: &[Range]) -> Vec<Range> {
    let IdMap::Ranges(own) = idmap else {
        return ranges.to_vec();
    };
    let of_host = |kind, id: u32| {
        let fits =
            |(k, inside, _, count): &&Range| *k == kind && (*inside..inside + count).contains(&id);
        ranges
            .iter()
            .find(fits)
            .map(|(_, inside, outside, _)| outside + (id - inside))
    };
    let mut mapped = Vec::new();
    for (kind, container, disk, count) in own {
        for offset in 0..*count {
            if let Some(host) = of_host(*kind, container + offset) {
                mapped.push((*kind, disk + offset, host, 1));
            }
        }
    }
    // What is not named keeps its id, unless somebody else has taken it.
    for (kind, inside, outside, count) in ranges {
        let mut start = *inside;
        let taken = |id: u32| {
            let ids = own.iter().filter(|(k, ..)| k == kind);
            ids.clone().any(|(_, container, disk, n)| {
                (*container..container + n).contains(&id) || (*disk..disk + n).contains(&id)
            })
        };
        for id in *inside..=inside + count {
            if id == inside + count || taken(id) {
                if id > start {
                    mapped.push((*kind, start, outside + (start - inside), id - start));
                }
                start = id + 1;
            }
        }
    }
    mapped
}

/// A user namespace with these ids, which nobody is in.
fn user_namespace(ranges: &[Range]) -> io::Result<OwnedFd> {
    let mut holder = Holder(hold()?);
    let proc = Utf8PathBuf::from(format!("/proc/{}", holder.0.id()));
    for (kind, file) in [('u', "uid_map"), ('g', "gid_map")] {
        let lines = ranges.iter().filter(|(k, ..)| *k == kind);
        let lines: String = lines
            .map(|(_, inside, outside, count)| format!("{inside} {outside} {count}\n"))
            .collect();
        std::fs::write(proc.join(file), lines)?;
    }
    let namespace = File::open(proc.join("ns/user"))?;
    holder.end();
    Ok(namespace.into())
}

/// A process in a user namespace of its own, which waits for ever.
fn hold() -> io::Result<Child> {
    #[allow(clippy::disallowed_methods, reason = "the holder of a namespace")]
    let mut command = std::process::Command::new("/bin/sleep");
    command
        .arg("infinity")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // SAFETY: between fork and exec only unshare(2) and reading errno are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(|| match libc::unshare(libc::CLONE_NEWUSER) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    // Returns after exec, and so after unshare.
    command.spawn()
}

struct Holder(Child);

impl Holder {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_on_disk() {
        let passthrough = on_disk(&IdMap::Passthrough, &RANGES);
        assert_eq!(passthrough, RANGES);
        let ranges = [('u', 0, 100_000, 10), ('g', 0, 200_000, 10)];
        let own = IdMap::Ranges(vec![('u', 5, 1000, 2)]);
        let mapped = on_disk(&own, &ranges);
        assert_eq!(
            mapped,
            [
                ('u', 1000, 100_005, 1),
                ('u', 1001, 100_006, 1),
                ('u', 0, 100_000, 5),
                ('u', 7, 100_007, 3),
                ('g', 0, 200_000, 10),
            ]
        );
    }

    #[test]
    fn ranges_are_the_containers() {
        let read = |text: &str| ranges(&crate::conf::Conf::read(100, text).0.current);
        assert_eq!(read("unprivileged: 1\n"), RANGES);
        assert_eq!(read("unprivileged: 0\n"), []);
        let own = read("unprivileged: 1\nlxc.idmap: u 0 5 6\nlxc.idmap: g 0 7 8\n");
        assert_eq!(own, [('u', 0, 5, 6), ('g', 0, 7, 8)]);
    }
}
