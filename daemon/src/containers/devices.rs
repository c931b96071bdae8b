//! Finds the device files that a container gets. Reads `/dev` and so blocks.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use camino::{Utf8Path, Utf8PathBuf};

use super::config::{ContainerSpec, Device};
use super::spec::{DeviceKind, HostDevice};

/// Parts of the host's `/dev` that containers have their own of.
const NOT_SHARED: [&str; 8] = [
    "pts",
    "shm",
    "mqueue",
    "console",
    "ptmx",
    "fd",
    ".lxc",
    ".lxd-mounts",
];

/// Deepest directory that is searched below `/dev` or a device's path.
const DEPTH: usize = 8;

/// A device cannot be given to a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// There is no such file.
    #[error("there is no device {path}")]
    NotFound {
        /// On this machine.
        path: Utf8PathBuf,
    },
    /// It is neither a device nor a directory.
    #[error("{path} is neither a device nor a directory of devices")]
    NotADevice {
        /// On this machine.
        path: Utf8PathBuf,
    },
    /// It cannot be looked at.
    #[error("cannot look at the device {path}")]
    Read {
        /// On this machine.
        path: Utf8PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// The devices of a container: those it asks for and, if it is privileged, all of the host's.
///
/// # Errors
///
/// A device that was asked for by name and is none.
pub(crate) fn resolve(config: &ContainerSpec) -> Result<Vec<HostDevice>, DeviceError> {
    let mut found = BTreeMap::new();
    if config.security.privileged {
        let all = Device {
            container_path: "/dev".into(),
            host_path: "/dev".into(),
            permissions: "rwm".into(),
        };
        search(&all, "/dev".into(), "/dev".into(), 0, &mut found)?;
    }
    for device in &config.devices {
        let (host, inside) = (&device.host_path, &device.container_path);
        // Named on purpose, so a link is followed, and finding nothing is an error.
        let real = host
            .canonicalize_utf8()
            .map_err(|source| failure(host, source))?;
        match host_device(&real, inside, &device.permissions)? {
            Some(found_one) => {
                found.insert(inside.clone(), found_one);
            }
            None if real.is_dir() => search(device, &real, inside, 0, &mut found)?,
            None => return Err(DeviceError::NotADevice { path: host.clone() }),
        }
    }
    Ok(found.into_values().collect())
}

fn failure(path: &Utf8Path, source: std::io::Error) -> DeviceError {
    match source.kind() {
        std::io::ErrorKind::NotFound => DeviceError::NotFound {
            path: path.to_owned(),
        },
        _ => DeviceError::Read {
            path: path.to_owned(),
            source,
        },
    }
}

/// Adds every device file below a directory. What is neither device nor directory is passed over, and so is what
/// vanishes meanwhile.
fn search(
    wanted: &Device,
    directory: &Utf8Path,
    inside: &Utf8Path,
    depth: usize,
    found: &mut BTreeMap<Utf8PathBuf, HostDevice>,
) -> Result<(), DeviceError> {
    let entries = directory
        .read_dir_utf8()
        .map_err(|source| failure(directory, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| failure(directory, source))?;
        let name = entry.file_name();
        if directory == "/dev" && NOT_SHARED.contains(&name) {
            continue;
        }
        let (path, inside) = (entry.path(), inside.join(name));
        match host_device(path, &inside, &wanted.permissions) {
            Ok(Some(device)) => {
                found.insert(inside, device);
            }
            Ok(None) if depth < DEPTH && entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                search(wanted, path, &inside, depth + 1, found)?;
            }
            Ok(None) | Err(DeviceError::NotFound { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The device at `path`, without following a link; `None` if it is no device.
fn host_device(
    path: &Utf8Path,
    inside: &Utf8Path,
    permissions: &str,
) -> Result<Option<HostDevice>, DeviceError> {
    let meta = path
        .symlink_metadata()
        .map_err(|source| failure(path, source))?;
    let kind = match meta.file_type() {
        kind if kind.is_block_device() => DeviceKind::Block,
        kind if kind.is_char_device() => DeviceKind::Char,
        _ => return Ok(None),
    };
    Ok(Some(HostDevice {
        path: inside.to_owned(),
        kind,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        permissions: permissions.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::config::SecurityContext;

    fn asking(host: &str, inside: &str) -> ContainerSpec {
        let device = Device {
            container_path: inside.into(),
            host_path: host.into(),
            permissions: "rw".into(),
        };
        ContainerSpec {
            devices: vec![device],
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn a_device_by_name() {
        let found = resolve(&asking("/dev/null", "/dev/nothing")).unwrap();
        let [device] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(
            (device.major, device.minor, device.kind),
            (1, 3, DeviceKind::Char)
        );
        assert_eq!(
            (device.path.as_str(), device.permissions.as_str()),
            ("/dev/nothing", "rw")
        );
    }

    #[test]
    fn links_are_followed_and_directories_searched() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path.join("link")).unwrap();
        let found = resolve(&asking(path.join("link").as_str(), "/dev/z")).unwrap();
        assert_eq!((found[0].major, found[0].minor), (1, 5));
        // In a directory, links are not: they may lead anywhere.
        assert_eq!(resolve(&asking(path.as_str(), "/dev/d")).unwrap(), []);
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let missing = resolve(&asking("/dev/no-such-device", "/dev/x"));
        assert!(
            matches!(missing, Err(DeviceError::NotFound { .. })),
            "{missing:?}"
        );
        let file = resolve(&asking("/etc/passwd", "/dev/x"));
        assert!(
            matches!(file, Err(DeviceError::NotADevice { .. })),
            "{file:?}"
        );
    }

    #[test]
    fn a_privileged_container_has_them_all_but_the_terminals() {
        let security = SecurityContext {
            privileged: true,
            ..SecurityContext::default()
        };
        let config = ContainerSpec {
            security,
            ..ContainerSpec::default()
        };
        let found = resolve(&config).unwrap();
        assert!(
            found.iter().any(|device| device.path == "/dev/null"),
            "{found:?}"
        );
        assert!(
            !found
                .iter()
                .any(|device| device.path.starts_with("/dev/pts")),
            "{found:?}"
        );
    }
}
