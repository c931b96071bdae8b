//! Making, mounting and removing root filesystems.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use nexcage_failpoint::hit;
use nexcage_image_store::{ChainId, LayerStoreError, MountOptions, RootfsId, RootfsOptions};

use crate::error::{Doing, Result, foreign, no_layer, no_rootfs, refused, unsupported};
use crate::images::Fate;
use crate::names::{ROLE, ROOTFS, allowed, check_id, is, is_missing, role, tags};
use crate::records::{Layer, Rootfs};
use crate::store::{Blocking, Inner};
use crate::zfs::{Properties, Refusal};

/// Pauses before a busy dataset is tried again: a container's mount namespace ends a little after its last
/// process.
const BUSY_PAUSES: [u64; 6] = match cfg!(test) {
    true => [0, 0, 1, 1, 1, 1],
    false => [5, 20, 50, 100, 200, 400],
};

/// A read-only view of a layer.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) id: RootfsId,
    pub(crate) top: ChainId,
}

impl Inner {
    /// Makes a writable root filesystem.
    pub(crate) async fn create_rootfs(
        self: Arc<Self>,
        id: RootfsId,
        top: ChainId,
        options: RootfsOptions,
    ) -> Result<()> {
        check_id(&id)?;
        allowed(&options.properties)?;
        let quota = options.quota_bytes;
        if quota == Some(0) {
            return Err(unsupported("a writable layer of no size".to_owned()));
        }
        let properties = move |layer: &Layer| {
            let mut properties = options.properties;
            if let Some(quota) = quota {
                // ZFS counts what is shared with the image too.
                let limit = layer.total_bytes.saturating_add(quota);
                properties.insert("refquota".to_owned(), limit.to_string());
            }
            properties
        };
        let begun = self
            .records
            .begin_rootfs(&id, &top, true, properties)
            .await?;
        let (rootfs, layer, new) = begun.ok_or_else(|| other_layer(&id, &top))?;
        hit("zfs.rootfs-row");
        match self.clone_layer(&rootfs, &layer, new).await {
            Ok(()) => {
                hit("zfs.rootfs-cloned");
                Ok(())
            }
            Err(error) if new => {
                self.records.forget_rootfs(&id).await?;
                Err(self.why_not_cloned(error, &layer).await)
            }
            Err(error) => Err(self.why_not_cloned(error, &layer).await),
        }
    }

    async fn clone_layer(&self, rootfs: &Rootfs, layer: &Layer, new: bool) -> Result<()> {
        if rootfs.current != 0 {
            // It has been restored, so it is there.
            return Ok(());
        }
        let name = self.names.container(&rootfs.id, 0);
        let from = layer.snapshot(&self.names);
        let properties = container_properties(rootfs);
        match self.zfs.clone_of(&from, &name, &properties).await {
            Err(e) if e.is(Refusal::Exists) => {}
            done => return done.doing_to("making the root filesystem", &name),
        }
        let entry = (self.zfs.get(&name, &[ROLE, ROOTFS]).await).doing_to("looking at", &name)?;
        let mine = is(&entry, role::CONTAINER) && entry.local(ROOTFS) == Some(&rootfs.id.0);
        match (mine, new) {
            (false, _) => Err(foreign(&name)),
            (true, false) => Ok(()),
            (true, true) => {
                // What an earlier one of this name has left.
                self.doom(&name).await?;
                (self.zfs.clone_of(&from, &name, &properties).await)
                    .doing_to("making the root filesystem", &name)
            }
        }
    }

    async fn why_not_cloned(&self, error: LayerStoreError, layer: &Layer) -> LayerStoreError {
        if !is_missing(&error) {
            return error;
        }
        self.strike_lost_layers().await;
        match self.records.layer(&layer.chain).await {
            Ok(None) => no_layer(&layer.chain),
            _ => error,
        }
    }

    /// Mounts what [`create_rootfs`](Self::create_rootfs) made.
    pub(crate) async fn mount_rootfs(
        self: Arc<Self>,
        id: RootfsId,
        options: MountOptions,
    ) -> Result<Utf8PathBuf> {
        let rootfs = self.writable(&id).await?;
        let dataset = self.names.container(&id, rootfs.current);
        match self.mount(&id, dataset, options).await {
            Err(e) if is_missing(&e) => Err(no_rootfs(&id)),
            done => done,
        }
    }

    /// The record of a root filesystem that has a dataset.
    pub(crate) async fn writable(&self, id: &RootfsId) -> Result<Rootfs> {
        let rootfs = self.records.rootfs(id).await?;
        (rootfs.filter(|rootfs| rootfs.writable)).ok_or_else(|| no_rootfs(id))
    }

    /// Mounts a layer's snapshot.
    pub(crate) async fn mount_readonly(
        self: Arc<Self>,
        view: View,
        options: MountOptions,
    ) -> Result<Utf8PathBuf> {
        let View { id, top } = view;
        check_id(&id)?;
        let none = |_: &Layer| Properties::new();
        let begun = self.records.begin_rootfs(&id, &top, false, none).await?;
        let (_, layer, _) = begun.ok_or_else(|| other_layer(&id, &top))?;
        hit("zfs.view-row");
        match self.mount(&id, layer.snapshot(&self.names), options).await {
            Err(e) if is_missing(&e) => {
                self.records.forget_rootfs(&id).await?;
                Err(self.why_not_cloned(e, &layer).await)
            }
            done => done,
        }
    }

    async fn mount(
        &self,
        id: &RootfsId,
        name: String,
        options: MountOptions,
    ) -> Result<Utf8PathBuf> {
        let (mine, other) = match options.idmap {
            Some(_) => (&self.places.mapped_mounts, &self.places.mounts),
            None => (&self.places.mounts, &self.places.mapped_mounts),
        };
        let (target, other) = (mine.join(&id.0), other.join(&id.0));
        let id = id.clone();
        self.blocking(move |with| {
            if with
                .kernel
                .is_mounted(&target)
                .doing("looking at", &target)?
            {
                return Ok(target);
            }
            if with.kernel.is_mounted(&other).doing("looking at", &other)? {
                return Err(refused(
                    io::ErrorKind::ResourceBusy,
                    format!("mounting the root filesystem {id} at {target}"),
                    "it is mounted for other user ids; unmount it first",
                ));
            }
            std::fs::create_dir_all(&target).doing("making the directory", &target)?;
            if let Err(e) =
                with.kernel
                    .mount(&name, &target, options.idmap.as_ref().map(AsFd::as_fd))
            {
                // Nothing is mounted there.
                let _ = std::fs::remove_dir(&target);
                return Err(mount_error(e, &name, options.idmap.is_some()));
            }
            hit("zfs.rootfs-mounted");
            Ok(target)
        })
        .await
    }

    /// Unmounts, wherever it is mounted.
    pub(crate) async fn unmount_rootfs(self: Arc<Self>, id: RootfsId) -> Result<()> {
        self.unmount(&id).await
    }

    pub(crate) async fn unmount(&self, id: &RootfsId) -> Result<()> {
        check_id(id)?;
        let targets = [&self.places.mounts, &self.places.mapped_mounts].map(|dir| dir.join(&id.0));
        self.blocking(move |with| unmount_all(with, &targets)).await
    }

    /// Removes everything of it, or leaves what is still in use to the chores.
    pub(crate) async fn remove_rootfs(self: Arc<Self>, id: RootfsId) -> Result<()> {
        self.unmount(&id).await?;
        hit("zfs.rootfs-unmounted");
        let generations = self.records.generations(&id).await?;
        let mut left: Vec<String> = (generations.iter())
            .map(|n| self.names.container(&id, *n))
            .collect();
        // Generations stand on each other, in whatever order they were restored.
        for _ in 0..generations.len().max(1) {
            left = self.destroy_all(left).await?;
        }
        for name in left {
            self.doom(&name).await?;
        }
        hit("zfs.rootfs-destroyed");
        self.records.forget_rootfs(&id).await?;
        self.usages.forget(&id);
        self.later_if_removing().await;
        Ok(())
    }

    /// Destroys those that nothing stands on, and says which are left.
    async fn destroy_all(&self, names: Vec<String>) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for name in names {
            if self.destroy_patiently(&name).await? == Fate::Kept {
                left.push(name);
            }
        }
        Ok(left)
    }

    /// Destroys a dataset, with some patience if it is busy.
    async fn destroy_patiently(&self, name: &str) -> Result<Fate> {
        for pause in BUSY_PAUSES {
            match self.zfs.destroy(name).await {
                Err(e) if e.is(Refusal::Busy) => {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                Ok(()) => return Ok(Fate::Gone),
                Err(e) if e.is(Refusal::NotFound) => return Ok(Fate::Gone),
                Err(_) => break,
            }
        }
        self.destroy_dataset(name).await
    }

    /// Layers may be waiting for what has just been removed.
    async fn later_if_removing(&self) {
        match self.records.all_layers(true).await {
            Ok(doomed) if doomed.is_empty() => {}
            _ => self.later(),
        }
        self.wake_if_unfinished();
    }
}

/// Properties of a root filesystem's dataset: those asked for, and our tags.
pub(crate) fn container_properties(rootfs: &Rootfs) -> Properties {
    let mut properties = rootfs.properties.clone();
    properties.extend(tags(&[(ROLE, role::CONTAINER), (ROOTFS, &rootfs.id.0)]));
    properties
}

fn unmount_all(with: &Blocking, targets: &[Utf8PathBuf]) -> Result<()> {
    for target in targets {
        with.kernel.unmount(target).doing("unmounting", target)?;
    }
    Ok(())
}

fn other_layer(id: &RootfsId, top: &ChainId) -> LayerStoreError {
    refused(
        io::ErrorKind::AlreadyExists,
        format!("making the root filesystem {id} on {top}"),
        "there is one of that name on another layer",
    )
}

fn mount_error(e: io::Error, name: &str, mapped: bool) -> LayerStoreError {
    match e.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) if mapped => unsupported(
            "mapped user ids with this kernel or OpenZFS; it needs Linux 5.19 and OpenZFS 2.2"
                .to_owned(),
        ),
        Some(libc::ENODEV) => unsupported("anything on a kernel without OpenZFS".to_owned()),
        _ => LayerStoreError::Io {
            doing: format!("mounting {name}"),
            source: e,
        },
    }
}
