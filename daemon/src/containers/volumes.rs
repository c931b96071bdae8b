//! Where a container's mounts come from: host paths, images, and the volumes an image declares.

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::RootfsId;
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};

use super::config::{ContainerSpec, Mount, MountSource};
use super::record::{ContainerRecord, ImageVolume};
use super::spec::{ImageVolumeMount, image_volumes};
use super::user_namespace;
use crate::error::{Kind, OpError};
use crate::pods::PodRecord;
use crate::runtime::Runtime;

/// Finds the images of a container's image volumes and names the root filesystems they will be mounted as.
pub(crate) async fn plan(
    runtime: &Runtime,
    id: &str,
    spec: &ContainerSpec,
) -> Result<Vec<ImageVolume>, OpError> {
    let mut planned = Vec::new();
    for mount in &spec.mounts {
        let MountSource::Image { image, .. } = &mount.source else {
            continue;
        };
        let found = runtime.images.image(&image.image).await;
        let record = found
            .map_err(OpError::step("cannot look up the image of a volume"))?
            .ok_or_else(|| OpError::NotFound {
                kind: Kind::Image,
                name: image.image.clone(),
            })?;
        planned.push(ImageVolume {
            container_path: mount.container_path.to_string(),
            rootfs: format!("{id}-{}", planned.len()),
            image_id: record.id.to_string(),
        });
    }
    Ok(planned)
}

/// Mounts the image volumes. The answer has one entry for each of the container's mounts: where its
/// image is mounted, if it is one.
pub(crate) async fn mount(
    runtime: &Runtime,
    pod: &PodRecord,
    record: &ContainerRecord,
) -> Result<Vec<Option<Utf8PathBuf>>, OpError> {
    let mut planned = record.image_volumes.iter();
    let mut mounted = Vec::with_capacity(record.spec.mounts.len());
    for mount in &record.spec.mounts {
        let volume = match &mount.source {
            MountSource::Image { .. } => planned.next(),
            MountSource::HostPath(_) => None,
        };
        mounted.push(match volume {
            Some(volume) => Some(mount_image(runtime, pod, volume).await?),
            None => None,
        });
    }
    Ok(mounted)
}

async fn mount_image(
    runtime: &Runtime,
    pod: &PodRecord,
    volume: &ImageVolume,
) -> Result<Utf8PathBuf, OpError> {
    let failed = |e| kubelet_reason(&volume.container_path, e);
    let image = runtime
        .images
        .image(&volume.image_id)
        .await
        .map_err(OpError::step("cannot look up the image of a volume"))?;
    let top = image
        .as_ref()
        .and_then(|i| i.top())
        .ok_or_else(|| OpError::NotFound {
            kind: Kind::Image,
            name: volume.image_id.clone(),
        })?;
    let name = RootfsId(volume.rootfs.clone());
    let layers = Arc::clone(runtime.images.layers());
    layers
        .mount_readonly(&name, top, user_namespace::mount_options(pod)?)
        .await
        .map_err(failed)
}

/// kubelet shows this reason when an image cannot be mounted.
fn kubelet_reason(path: &str, source: impl std::error::Error + Send + Sync + 'static) -> OpError {
    OpError::failed(
        format!("ImageVolumeMountFailed: cannot mount an image at {path}"),
        source,
    )
}

/// What to bind for each of the container's mounts. Host directories that do not exist are made, as
/// containerd does. Blocking.
pub(crate) fn sources(
    spec: &ContainerSpec,
    images: &[Option<Utf8PathBuf>],
) -> Result<Vec<Utf8PathBuf>, OpError> {
    spec.mounts
        .iter()
        .zip(images)
        .map(|(mount, image)| source(mount, image.as_deref()))
        .collect()
}

fn source(mount: &Mount, image: Option<&Utf8Path>) -> Result<Utf8PathBuf, OpError> {
    match (&mount.source, image) {
        (MountSource::Image { sub_path, .. }, Some(root)) => {
            let inside = existing_in_root(root, sub_path);
            inside.map_err(|e| kubelet_reason(&format!("{} ({sub_path})", mount.container_path), e))
        }
        (MountSource::Image { .. }, None) => Err(OpError::State(format!(
            "the image at {} is not mounted",
            mount.container_path
        ))),
        (MountSource::HostPath(path), _) => {
            host_path(path).map_err(OpError::step(format!("cannot mount the host path {path}")))
        }
    }
}

fn host_path(path: &Utf8Path) -> std::io::Result<Utf8PathBuf> {
    match path.canonicalize_utf8() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path)?;
            path.canonicalize_utf8()
        }
        other => other,
    }
}

/// The volumes that the image declares, where the root filesystem is read-only: they stay writable.
/// Each is a part of the container's own writable layer, and so needs no copying and goes with the
/// container. On a writable root they are nothing special. Blocking.
pub(crate) fn declared(
    runtime: &Runtime,
    spec: &ContainerSpec,
    image: Option<&oci_spec::image::Config>,
    rootfs: &Utf8Path,
) -> Result<Vec<ImageVolumeMount>, OpError> {
    if !spec.security.readonly_rootfs && !runtime.container_facts.read_only_rootfs {
        return Ok(Vec::new());
    }
    let paths = image_volumes(spec, image)?;
    paths
        .into_iter()
        .map(|container_path| {
            let source = made_in_root(rootfs, &container_path).map_err(OpError::step(format!(
                "cannot make the image's volume {container_path}"
            )))?;
            Ok(ImageVolumeMount {
                container_path,
                source,
            })
        })
        .collect()
}

/// Where `path` leads inside of `root`, with symbolic links that never leave it.
fn existing_in_root(root: &Utf8Path, path: &Utf8Path) -> std::io::Result<Utf8PathBuf> {
    let relative = path.as_str().trim_start_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    let dir = rustix::fs::open(
        root.as_std_path(),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let found = openat2(
        &dir,
        relative,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
    Utf8PathBuf::try_from(std::fs::read_link(name)?).map_err(|e| e.into_io_error())
}

/// As [`existing_in_root`], making the directories that are missing.
fn made_in_root(root: &Utf8Path, path: &Utf8Path) -> std::io::Result<Utf8PathBuf> {
    let mut reached = Utf8PathBuf::from("/");
    for part in path
        .components()
        .filter(|c| matches!(c, camino::Utf8Component::Normal(_)))
    {
        let parent = existing_in_root(root, &reached)?;
        let parent = rustix::fs::open(
            parent.as_std_path(),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        match mkdirat(&parent, part.as_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => reached.push(part),
            Err(e) => return Err(e.into()),
        }
    }
    existing_in_root(root, &reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_an_image_stay_inside_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::try_from(dir.path().canonicalize().unwrap()).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        std::fs::create_dir(root.join("etc")).unwrap();
        assert_eq!(
            existing_in_root(&root, "out".into()).unwrap(),
            root.join("etc")
        );
        let made = made_in_root(&root, "/out/data/deep".into()).unwrap();
        assert_eq!(made, root.join("etc/data/deep"));
        assert!(made.is_dir());
        assert!(existing_in_root(&root, "missing".into()).is_err());
    }
}
