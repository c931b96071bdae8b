//! Putting things right at start.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::LayerStoreError;

use crate::chores::Chores;
use crate::error::{Doing, refused, unsupported};
use crate::mount::{self, View};
use crate::records::{Kept, Records, wait};
use crate::rootfs::mount_error;

/// Longest path of the store: the kernel takes 255 bytes for one layer's path.
const PATH_MAX: usize = 180;

/// Where things are; see the crate's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) root: Utf8PathBuf,
    pub(crate) layers: Utf8PathBuf,
    pub(crate) rootfses: Utf8PathBuf,
    pub(crate) trash: Utf8PathBuf,
    pub(crate) empty: Utf8PathBuf,
    pub(crate) mounts: Utf8PathBuf,
    pub(crate) mapped_mounts: Utf8PathBuf,
    pub(crate) idmap: Utf8PathBuf,
}

impl Places {
    pub(crate) fn new(root: &Utf8Path, run: &Utf8Path) -> Self {
        Self {
            root: root.to_owned(),
            layers: root.join("l"),
            rootfses: root.join("c"),
            trash: root.join("trash"),
            empty: root.join("empty"),
            mounts: run.join("rootfs"),
            mapped_mounts: run.join("mapped"),
            idmap: run.join("idmap"),
        }
    }

    /// Makes them. Files of images belong to whom the image says, setuid bits and all, so nobody
    /// but root may reach them; only mounts for user namespaces have to be reachable for others.
    pub(crate) fn make(&self) -> Result<(), LayerStoreError> {
        for path in [&self.root, &self.mapped_mounts] {
            let wrong = path.as_str().contains([':', ',', '\\', '\n']) || !path.is_absolute();
            if wrong || path.as_str().len() > PATH_MAX {
                return Err(refused(
                    std::io::ErrorKind::InvalidInput,
                    format!("using the directory {path}"),
                    "the path must be absolute, of at most 180 bytes, without : , \\ and newline",
                ));
            }
        }
        for (path, mode) in [
            (&self.root, 0o700),
            (&self.layers, 0o700),
            (&self.rootfses, 0o700),
            (&self.trash, 0o700),
            (&self.empty, 0o755),
            (&self.mounts, 0o700),
            (&self.mapped_mounts, 0o711),
            (&self.idmap, 0o700),
        ] {
            std::fs::create_dir_all(path).doing("making the directory", path)?;
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
                .doing("setting the mode of", path)?;
        }
        Ok(())
    }
}

/// Mounts an empty overlay for a moment: proves that this kernel and file system can. A full disk proves nothing, and does not
/// keep what is there from being removed.
pub(crate) fn try_mount(places: &Places) -> Result<(), LayerStoreError> {
    let probe = places.root.join("probe");
    let tried = try_mount_in(places, &probe);
    let removed = match std::fs::remove_dir_all(&probe) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).doing("removing", &probe),
        _ => Ok(()),
    };
    match tried {
        Err(LayerStoreError::Io { source, doing })
            if matches!(
                source.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            ) =>
        {
            tracing::warn!(error = %source, doing, "the disk is full: not tried whether overlays can be mounted");
            removed
        }
        tried => tried.and(removed),
    }
}

fn try_mount_in(places: &Places, probe: &Utf8Path) -> Result<(), LayerStoreError> {
    let (upper, work) = (probe.join("upper"), probe.join("work"));
    let target = places.idmap.join("probe");
    for dir in [&upper, &work, &target] {
        std::fs::create_dir_all(dir).doing("making the directory", dir)?;
    }
    let view = View {
        lowers: std::slice::from_ref(&places.empty),
        upper: Some((upper, work)),
    };
    mount::mount(&view, &target).map_err(|e| mount_error(e, &target))?;
    mount::unmount(&target).doing("unmounting", &target)
}

/// Strikes off what was not finished and takes away what has no record.
pub(crate) fn sweep(
    places: &Places,
    records: &Records,
    chores: &Chores,
) -> Result<(), LayerStoreError> {
    let Kept {
        layers,
        rootfses,
        lost,
    } = wait(records.strike_unfinished())?;
    if lost > 0 {
        tracing::warn!(
            lost,
            "layers were not yet on the disk when the machine stopped; they are dropped"
        );
    }
    let layers: HashSet<String> = layers.iter().map(ToString::to_string).collect();
    let rootfses: HashSet<String> = rootfses.into_iter().map(|id| id.0).collect();
    let none = HashSet::new();
    for (dir, known) in [
        (&places.mounts, &rootfses),
        (&places.mapped_mounts, &rootfses),
        (&places.idmap, &none),
    ] {
        for name in names(dir)?.difference(known) {
            unmount_all(&dir.join(name))?;
        }
    }
    for (dir, known) in [(&places.layers, &layers), (&places.rootfses, &rootfses)] {
        for name in names(dir)?.difference(known) {
            tracing::info!(path = %dir.join(name), "swept what was left unfinished");
            chores.discard(&dir.join(name))?;
        }
    }
    for missing in layers.difference(&names(&places.layers)?) {
        tracing::error!(path = %places.layers.join(missing), "the directory of a layer has disappeared; images with it cannot be used until they are removed and pulled again");
    }
    chores.flush();
    chores.empty();
    Ok(())
}

/// Unmounts `path` and what is mounted right below it.
fn unmount_all(path: &Utf8Path) -> Result<(), LayerStoreError> {
    if !mount::is_mounted(path).doing("looking at", path)? {
        for name in names(path)? {
            let inner = path.join(name);
            mount::unmount(&inner).doing("unmounting", &inner)?;
        }
    }
    mount::unmount(path).doing("unmounting", path)
}

fn names(dir: &Utf8Path) -> Result<HashSet<String>, LayerStoreError> {
    let read = || -> std::io::Result<HashSet<String>> {
        (dir.read_dir_utf8()?)
            .map(|entry| Ok(entry?.file_name().to_owned()))
            .collect()
    };
    read().doing("reading the directory", dir)
}

/// This run of the machine.
pub(crate) fn boot_id() -> Result<String, LayerStoreError> {
    let path = Utf8Path::new("/proc/sys/kernel/random/boot_id");
    let id = std::fs::read_to_string(path).doing("reading", path)?;
    match id.trim() {
        id if id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') => Ok(id.to_owned()),
        _ => Err(unsupported("this machine's boot id".to_owned())),
    }
}
