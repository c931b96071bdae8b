//! What is mounted where, and in which order.

use std::cmp::Reverse;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use oci_spec::image;
use oci_spec::runtime::{Mount as OciMount, MountBuilder};

use super::{SpecError, SpecInput, read_only_rootfs};
use crate::containers::config::{ContainerSpec, Mount, Propagation};
use crate::cri::InvalidField;

/// First kernel with mount_setattr(2), which recursive read-only mounts need.
const MOUNT_SETATTR: (u32, u32) = (5, 12);

/// All mounts. Those of the request take the place of the runtime's own at the same path, and whatever lies deeper
/// comes later, so that no mount hides another.
pub(super) fn mounts(input: &SpecInput<'_>) -> Result<Vec<OciMount>, SpecError> {
    let asked: Vec<&Utf8Path> = input
        .config
        .mounts
        .iter()
        .map(|mount| mount.container_path.as_path())
        .collect();
    let replaced = |own: &Utf8Path| {
        // A /dev from the host comes with everything below it.
        asked
            .iter()
            .any(|path| *path == own || (*path == "/dev" && own.starts_with("/dev")))
    };
    let mut list = Vec::new();
    for (path, mount) in own_mounts(input)? {
        if !replaced(&path) {
            list.push((path, mount));
        }
    }
    for volume in input.image_volumes {
        if !replaced(&volume.container_path) {
            let options = ["rbind", "rprivate", "rw"];
            let mount = oci(
                &volume.container_path,
                "bind",
                volume.source.as_str(),
                &options,
            )?;
            list.push((volume.container_path.clone(), mount));
        }
    }
    if input.mount_sources.len() != input.config.mounts.len() {
        let problem = format!(
            "{} mounts were asked for, and {} were looked up",
            input.config.mounts.len(),
            input.mount_sources.len()
        );
        return Err(InvalidField::invalid("config.mounts", problem).into());
    }
    for (n, (mount, source)) in input
        .config
        .mounts
        .iter()
        .zip(input.mount_sources)
        .enumerate()
    {
        list.push((
            mount.container_path.clone(),
            asked_mount(input, n, mount, source)?,
        ));
    }
    list.sort_by_key(|(path, _)| depth(path));
    Ok(list.into_iter().map(|(_, mount)| mount).collect())
}

fn depth(path: &Utf8Path) -> usize {
    path.components()
        .filter(|part| matches!(part, Utf8Component::Normal(_)))
        .count()
}

fn oci(path: &Utf8Path, kind: &str, source: &str, options: &[&str]) -> Result<OciMount, SpecError> {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    let mount = MountBuilder::default()
        .destination(path.as_std_path())
        .typ(kind)
        .source(source)
        .options(options)
        .build()?;
    Ok(mount)
}

/// What every container has.
fn own_mounts(input: &SpecInput<'_>) -> Result<Vec<(Utf8PathBuf, OciMount)>, SpecError> {
    let sandbox = input.sandbox;
    let access = if input.config.security.privileged {
        "rw"
    } else {
        "ro"
    };
    let mut list = vec![
        ("/proc", "proc", "proc", vec!["nosuid", "noexec", "nodev"]),
        (
            "/dev",
            "tmpfs",
            "tmpfs",
            vec!["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            vec![
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        (
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            vec!["nosuid", "noexec", "nodev"],
        ),
        (
            "/sys",
            "sysfs",
            "sysfs",
            vec!["nosuid", "noexec", "nodev", access],
        ),
        (
            "/dev/shm",
            "bind",
            sandbox.shm.as_str(),
            vec!["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"],
        ),
    ];
    // Where the machine's cgroups are not managed, the container sees none rather than all.
    if input.cgroup.is_some() {
        let options = vec!["nosuid", "noexec", "nodev", "relatime", access];
        list.push(("/sys/fs/cgroup", "cgroup", "cgroup", options));
    }
    let access = if read_only_rootfs(input) { "ro" } else { "rw" };
    for (path, source) in [
        ("/etc/hosts", &sandbox.hosts),
        ("/etc/hostname", &sandbox.hostname_file),
        ("/etc/resolv.conf", &sandbox.resolv_conf),
    ] {
        if let Some(source) = source {
            list.push((
                path,
                "bind",
                source.as_str(),
                vec!["rbind", "rprivate", access],
            ));
        }
    }
    list.into_iter()
        .map(|(path, kind, source, options)| {
            Ok((path.into(), oci(path.into(), kind, source, &options)?))
        })
        .collect()
}

fn asked_mount(
    input: &SpecInput<'_>,
    n: usize,
    mount: &Mount,
    source: &Utf8Path,
) -> Result<OciMount, SpecError> {
    if mount.recursive_read_only && input.node.seccomp_target.kernel < MOUNT_SETATTR {
        let field = format!("config.mounts[{n}].recursive_read_only");
        return Err(InvalidField::unsupported(field, "needs Linux 5.12 or newer").into());
    }
    let mut options = vec!["rbind", propagation(mount.propagation)];
    options.push(match (mount.recursive_read_only, mount.readonly) {
        (true, _) => "rro",
        (false, true) => "ro",
        (false, false) => "rw",
    });
    options.extend(mount.options.iter().map(|flag| flag.name()));
    // Without a mapping of its own the option means that of the container's user namespace, which is what was asked for.
    if mount.mapping.is_some() {
        options.push("idmap");
    }
    oci(&mount.container_path, "bind", source.as_str(), &options)
}

fn propagation(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    }
}

/// What the container's root must be for its mounts to propagate; `None` for private.
pub(super) fn rootfs_propagation(config: &ContainerSpec) -> Option<&'static str> {
    let strength = |propagation: &Propagation| match propagation {
        Propagation::Private => 0,
        Propagation::HostToContainer => 1,
        Propagation::Bidirectional => 2,
    };
    let all = config.mounts.iter().map(|mount| mount.propagation);
    let strongest = all.min_by_key(|p| Reverse(strength(p)))?;
    (strongest != Propagation::Private).then(|| propagation(strongest))
}

/// Volumes that the image declares and the request does not mount: each needs a directory of
/// its own, filled from the image, so that it is writable whatever the root filesystem is.
///
/// # Errors
///
/// A path that leaves the root filesystem.
pub(crate) fn image_volumes(
    config: &ContainerSpec,
    image: Option<&image::Config>,
) -> Result<Vec<Utf8PathBuf>, InvalidField> {
    let mut list = Vec::new();
    for text in image
        .and_then(|image| image.volumes().as_ref())
        .into_iter()
        .flatten()
    {
        let path = Utf8Path::new("/").join(text);
        let refused = path
            .components()
            .any(|part| part == Utf8Component::ParentDir)
            || depth(&path) == 0
            || text.contains('\0');
        if refused {
            let problem = format!("the image declares the volume {text:?}, which is no directory");
            return Err(InvalidField::invalid("config.image", problem));
        }
        let path: Utf8PathBuf = path.components().collect();
        if !config
            .mounts
            .iter()
            .any(|mount| mount.container_path == path)
        {
            list.push(path);
        }
    }
    list.sort();
    list.dedup();
    Ok(list)
}
