//! Making, mounting and removing root filesystems.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_failpoint::hit;
use nexcage_image_store::idmap::mapped_copy;
use nexcage_image_store::{ChainId, LayerStoreError, MountOptions, RootfsId, RootfsOptions, Usage};
use rustix::fs::CWD;
use rustix::mount::MoveMountFlags;

use crate::error::{Doing, refused, unsupported};

use crate::layers::{copy_root, open};
use crate::mount::{self, MountError, View};
use crate::records::{LayerDir, wait};
use crate::store::Inner;
use crate::usage;

impl Inner {
    /// Makes a writable root filesystem. Blocking.
    pub(crate) fn create_rootfs(
        &self,
        id: &RootfsId,
        top: &ChainId,
        options: &RootfsOptions,
    ) -> Result<(), LayerStoreError> {
        check_id(id)?;
        if options.quota_bytes.is_some() {
            return Err(unsupported(format!(
                "a limit of the writable layer on {}; leave the limit out",
                fs_name(&self.places.root)
            )));
        }
        if let Some(name) = options.properties.keys().next() {
            return Err(unsupported(format!(
                "the property {name:?}; it knows no properties"
            )));
        }
        self.begin_rootfs(id, top, true)?;
        hit("overlay.rootfs-row");
        let top = wait(self.records.rootfs(id))?.and_then(|record| record.layers.first().copied());
        match top {
            Some(top) => self.make_upper(id, top).map(drop),
            None => Err(no_rootfs(id)),
        }
    }

    fn begin_rootfs(
        &self,
        id: &RootfsId,
        top: &ChainId,
        writable: bool,
    ) -> Result<(), LayerStoreError> {
        match wait(self.records.begin_rootfs(id, top, writable))? {
            true => Ok(()),
            false => Err(refused(
                io::ErrorKind::AlreadyExists,
                format!("making the root filesystem {id} on {top}"),
                "there is one of that name on another layer",
            )),
        }
    }

    /// The upper and work directory of `id`, made if they are not there (they may have been lost in a
    /// power cut).
    fn make_upper(
        &self,
        id: &RootfsId,
        top: LayerDir,
    ) -> Result<(Utf8PathBuf, Utf8PathBuf), LayerStoreError> {
        let base = self.places.rootfses.join(&id.0);
        let (upper, work, new) = (base.join("upper"), base.join("work"), base.join("new"));
        std::fs::create_dir_all(&work).doing("making the directory", &work)?;
        if !upper.exists() {
            std::fs::create_dir_all(&new).doing("making the directory", &new)?;
            copy_root(&open(&self.layer_path(top))?, &open(&new)?)
                .doing("setting the attributes of", &new)?;
            // An upper directory that exists has the right attributes, or those the container gave it.
            std::fs::rename(&new, &upper).doing("renaming to", &upper)?;
        }
        hit("overlay.rootfs-dirs");
        Ok((upper, work))
    }

    /// Mounts what [`create_rootfs`](Self::create_rootfs) made. Blocking.
    pub(crate) fn mount_rootfs(
        &self,
        id: &RootfsId,
        options: &MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError> {
        let record = wait(self.records.rootfs(id))?.ok_or_else(|| no_rootfs(id))?;
        let (Some(top), true) = (record.layers.first(), record.writable) else {
            return Err(no_rootfs(id));
        };
        let upper = self.make_upper(id, *top)?;
        self.mount(id, &record.layers, Some(upper), options)
    }

    /// Mounts a read-only view. Blocking.
    pub(crate) fn mount_readonly(
        &self,
        id: &RootfsId,
        top: &ChainId,
        options: &MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError> {
        check_id(id)?;
        self.begin_rootfs(id, top, false)?;
        hit("overlay.view-row");
        let record = wait(self.records.rootfs(id))?.ok_or_else(|| no_rootfs(id))?;
        self.mount(id, &record.layers, None, options)
    }

    fn mount(
        &self,
        id: &RootfsId,
        layers: &[LayerDir],
        upper: Option<(Utf8PathBuf, Utf8PathBuf)>,
        options: &MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError> {
        let (mine, other) = match options.idmap {
            Some(_) => (&self.places.mapped_mounts, &self.places.mounts),
            None => (&self.places.mounts, &self.places.mapped_mounts),
        };
        let (target, other) = (mine.join(&id.0), other.join(&id.0));
        if mount::is_mounted(&target).doing("looking at", &target)? {
            return Ok(target);
        }
        if mount::is_mounted(&other).doing("looking at", &other)? {
            return Err(refused(
                io::ErrorKind::ResourceBusy,
                format!("mounting the root filesystem {id} at {target}"),
                "it is mounted for other user ids; unmount it first",
            ));
        }
        std::fs::create_dir_all(&target).doing("making the directory", &target)?;
        let mut lowers: Vec<Utf8PathBuf> = layers.iter().map(|dir| self.layer_path(*dir)).collect();
        // overlayfs wants two layers where there is no upper; whiteouts of the lowest need one below.
        lowers.push(self.places.empty.clone());
        let mapped = match &options.idmap {
            Some(userns) => Some(self.map_lowers(id, &lowers, userns.as_fd(), upper.as_ref())?),
            None => None,
        };
        if let Some(mapped) = &mapped {
            lowers.clone_from(&mapped.paths);
        }
        let view = View {
            lowers: &lowers,
            upper,
        };
        mount::mount(&view, &target).map_err(|e| mount_error(e, &target))?;
        hit("overlay.rootfs-mounted");
        Ok(target)
    }

    /// Mounts each layer with mapped ids, for as long as it takes to mount an overlay of them. The upper
    /// directory cannot be mapped; there, files belong to the ids that the namespace is mapped to.
    fn map_lowers(
        &self,
        id: &RootfsId,
        lowers: &[Utf8PathBuf],
        userns: BorrowedFd<'_>,
        upper: Option<&(Utf8PathBuf, Utf8PathBuf)>,
    ) -> Result<Mapped, LayerStoreError> {
        let mut mapped = Mapped {
            dir: self.places.idmap.join(&id.0),
            paths: Vec::new(),
        };
        for (i, lower) in lowers.iter().enumerate() {
            let copy = mapped_copy(lower, userns).map_err(|e| match e.raw_os_error() {
                Some(libc::EINVAL | libc::ENOSYS) => unsupported(format!(
                    "mapped user ids on {} with this kernel",
                    fs_name(&self.places.root)
                )),
                _ => LayerStoreError::Io {
                    doing: format!("mapping the user ids of {lower}"),
                    source: e,
                },
            })?;
            if let (0, Some((upper, _))) = (i, upper) {
                copy_owner(&copy, upper).doing("setting the owner of", upper)?;
            }
            let target = mapped.dir.join(i.to_string());
            std::fs::create_dir_all(&target).doing("making the directory", &target)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(copy, "", CWD, target.as_std_path(), flags)
                .doing("mounting", &target)?;
            mapped.paths.push(target);
            hit("overlay.layer-mapped");
        }
        Ok(mapped)
    }

    /// Unmounts, wherever it is mounted. Blocking.
    pub(crate) fn unmount_rootfs(&self, id: &RootfsId) -> Result<(), LayerStoreError> {
        check_id(id)?;
        for dir in [&self.places.mounts, &self.places.mapped_mounts] {
            let target = dir.join(&id.0);
            mount::unmount(&target).doing("unmounting", &target)?;
        }
        hit("overlay.rootfs-unmounted");
        Ok(())
    }

    /// Removes everything of it. Blocking.
    pub(crate) fn remove_rootfs(&self, id: &RootfsId) -> Result<(), LayerStoreError> {
        self.unmount_rootfs(id)?;
        self.chores.discard(&self.places.rootfses.join(&id.0))?;
        hit("overlay.rootfs-discarded");
        wait(self.records.forget_rootfs(id))?;
        self.usages.forget(id);
        self.chores.empty();
        Ok(())
    }

    /// What was written to it. Blocking.
    pub(crate) fn rootfs_usage(&self, id: &RootfsId) -> Result<Usage, LayerStoreError> {
        let record = wait(self.records.rootfs(id))?.ok_or_else(|| no_rootfs(id))?;
        if !record.writable {
            return Ok(Usage::default());
        }
        if let Some(usage) = self.usages.get(id) {
            return Ok(usage);
        }
        let upper = self.places.rootfses.join(&id.0).join("upper");
        let usage = usage::of(&upper).doing("measuring", &upper)?;
        self.usages.put(id, usage);
        Ok(usage)
    }

    /// What was written to all of them. Blocking.
    pub(crate) fn rootfses_usage(&self) -> Result<Usage, LayerStoreError> {
        let mut sum = Usage::default();
        for id in wait(self.records.rootfses())? {
            match self.rootfs_usage(&id) {
                Ok(usage) => {
                    sum.bytes = sum.bytes.saturating_add(usage.bytes);
                    sum.inodes = sum.inodes.saturating_add(usage.inodes);
                }
                // Removed meanwhile.
                Err(LayerStoreError::NotFound { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(sum)
    }
}

/// Mounts of layers with mapped ids; gone when dropped. The overlay keeps copies of its own.
struct Mapped {
    dir: Utf8PathBuf,
    paths: Vec<Utf8PathBuf>,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        for path in &self.paths {
            if let Err(error) = mount::unmount(path) {
                tracing::warn!(%error, %path, "a mapped layer is still mounted; the next start unmounts it");
            }
        }
        // Left for the next start if something in it is.
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// Gives `path` the owner of a mount's root, as this process sees it.
fn copy_owner(from: impl AsFd, path: &Utf8Path) -> io::Result<()> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    let stat = rustix::fs::statat(from, "", flags)?;
    std::os::unix::fs::lchown(path, Some(stat.st_uid), Some(stat.st_gid))
}

/// Ids become names of directories.
fn check_id(id: &RootfsId) -> Result<(), LayerStoreError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if matches!(id.0.len(), 1..=128) && id.0.bytes().all(plain) && !id.0.starts_with('.') {
        return Ok(());
    }
    Err(refused(
        io::ErrorKind::InvalidInput,
        format!("using {:?} as the name of a root filesystem", id.0),
        "a name has 1 to 128 letters, digits, - _ . and does not begin with a dot",
    ))
}

fn no_rootfs(id: &RootfsId) -> LayerStoreError {
    LayerStoreError::NotFound {
        what: "root filesystem",
        name: id.0.clone(),
    }
}

pub(crate) fn mount_error(error: MountError, target: &Utf8Path) -> LayerStoreError {
    match error {
        MountError::Kernel(source, said) => LayerStoreError::Io {
            doing: format!("mounting an overlay at {target}{said}"),
            source,
        },
        MountError::TooManyLayers(n) => unsupported(format!(
            "an image of {n} layers on this kernel: before Linux 6.8, their names must fit one page"
        )),
    }
}

/// The file system that holds `path`, for messages.
fn fs_name(path: &Utf8Path) -> String {
    let kind = rustix::fs::statfs(path.as_std_path()).map_or(0, |s| s.f_type);
    match kind {
        0xef53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x0102_1994 => "tmpfs".to_owned(),
        0x794c_7630 => "overlayfs".to_owned(),
        0x2fc1_2fc1 => "zfs".to_owned(),
        0x6573_5546 => "fuse".to_owned(),
        other => format!("a file system of type {other:#x}"),
    }
}
