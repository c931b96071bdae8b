//! Opening the store: whose the dataset is, what must be in it, and what a crash left.

use std::collections::HashSet;
use std::sync::Arc;

use camino::Utf8Path;

use crate::chores;
use crate::error::{Doing, Result, foreign, refused};
use crate::health::mount_fs;
use crate::names::{CONFIGURED, Names, ROLE, STORE, TREE, common_properties, is, tags, with_base};
use crate::recover::{Disk, Known, plan};
use crate::store::{Blocking, Inner};
use crate::zfs::{Entry, Programs, Properties, Refusal, Zfs};

/// Bytes that can still be written to a dataset (zfsprops(7)).
const ROOM: &str = "available";

/// Everything that has to be done before the store can be used.
pub(crate) async fn open(inner: &Arc<Inner>, properties: &Properties) -> Result<()> {
    let properties = with_base(properties)?;
    claim(inner).await?;
    let root = inner.names.root();
    let tree = (inner.zfs.tree(root, &TREE).await).doing_to("listing", root)?;
    make_datasets(inner, &tree).await?;
    set_properties(inner, &properties).await?;
    recover(inner, &tree).await?;
    let known: HashSet<String> = (inner.records.all_rootfses().await?.into_iter())
        .map(|rootfs| rootfs.id.0)
        .collect();
    let (places, fs) = (inner.places.clone(), inner.names.fs());
    inner
        .blocking(move |with| {
            for dir in [&places.mounts, &places.mapped_mounts] {
                sweep_mounts(with, dir, &known)?;
            }
            mount_fs(with, &fs, &places.fs)
        })
        .await
}

/// Makes sure that the dataset is there and belongs to no other store: two of them would destroy each
/// other's containers.
async fn claim(inner: &Arc<Inner>) -> Result<()> {
    let root = inner.names.root().to_owned();
    let entry = match inner.zfs.get(&root, &[STORE]).await {
        Err(e) if e.is(Refusal::NotFound) => return Err(missing(inner).await),
        entry => entry.doing_to("using the dataset", &root)?,
    };
    let mine = inner.records.store_id().await?;
    match entry.local(STORE) {
        Some(owner) if owner == mine => Ok(()),
        Some(owner) => Err(refused(
            std::io::ErrorKind::AlreadyExists,
            format!("using the dataset {root}"),
            format!(
                "it belongs to the nexcage store {owner}, and the records in {} are those of {mine}; \
                 give this one another dataset, or hand it over, without its images and containers, \
                 with: zfs inherit {STORE} {root}",
                inner.places.root
            ),
        )),
        None => (inner
            .zfs
            .set(&root, &tags(&[(STORE, &mine), (ROLE, "root")]))
            .await)
            .doing_to("setting the properties of", &root),
    }
}

async fn missing(inner: &Arc<Inner>) -> nexcage_image_store::LayerStoreError {
    let pool = inner.names.pool().to_owned();
    let state = inner
        .blocking(move |with| {
            with.kernel
                .pool_state(&pool)
                .doing_to("asking for the state of the pool", &pool)
        })
        .await;
    match state {
        Ok(Some(_)) => refused(
            std::io::ErrorKind::NotFound,
            format!("using the dataset {}", inner.names.root()),
            format!(
                "it does not exist; make it with: zfs create {}",
                inner.names.root()
            ),
        ),
        Ok(None) => inner.unusable(None),
        Err(error) => error,
    }
}

/// Makes the datasets that hold the others, unless they are there.
async fn make_datasets(inner: &Arc<Inner>, tree: &[Entry]) -> Result<()> {
    let names = &inner.names;
    for (name, role) in [
        (names.images(), "images"),
        (names.containers(), "containers"),
        (names.deleted(), "deleted"),
        (names.fs(), "fs"),
    ] {
        match tree.iter().find(|entry| entry.name == name) {
            Some(entry) if is(entry, role) => continue,
            Some(_) => return Err(foreign(&name)),
            None => {}
        }
        let properties = tags(&[
            ("mountpoint", "legacy"),
            ("canmount", "noauto"),
            // Snapshots by others would keep what is removed.
            ("com.sun:auto-snapshot", "false"),
            (ROLE, role),
        ]);
        (inner.zfs.create(&name, &properties).await).doing_to("making the dataset", &name)?;
    }
    Ok(())
}

/// Sets what is configured on images and containers, and takes back what is not any more. Datasets below
/// inherit it.
async fn set_properties(inner: &Arc<Inner>, wanted: &Properties) -> Result<()> {
    let datasets = [inner.names.images(), inner.names.containers()];
    let present = (inner.zfs.local(&datasets).await).doing_to("looking at", &datasets[0])?;
    let configured: Vec<String> = wanted
        .iter()
        .map(|(p, value)| format!("{p}={value}"))
        .collect();
    let configured = configured.join(" ");
    let none = Entry::default();
    for name in &datasets {
        let entry = present
            .iter()
            .find(|entry| entry.name == *name)
            .unwrap_or(&none);
        if entry.local(CONFIGURED) == Some(&configured) {
            continue;
        }
        for property in common_properties() {
            if entry.local(property).is_some() && !wanted.contains_key(property) {
                (inner.zfs.inherit(name, property).await)
                    .doing_to("setting the properties of", name)?;
            }
        }
        let mut all = wanted.clone();
        all.insert(CONFIGURED.to_owned(), configured.clone());
        (inner.zfs.set(name, &all).await).doing_to("setting the properties of", name)?;
    }
    let containers = present.iter().find(|entry| entry.name == datasets[1]);
    if containers.and_then(|entry| entry.local("snapdir")) == Some("disabled") {
        return Ok(());
    }
    // Keeps containers from seeing their checkpoints, where OpenZFS (from 2.3) can do that.
    match inner
        .zfs
        .set(&datasets[1], &tags(&[("snapdir", "disabled")]))
        .await
    {
        // What a read-only pool is good for, `check` says.
        Err(e) if e.is(Refusal::Property) || e.is(Refusal::ReadOnly) => Ok(()),
        done => done.doing_to("setting the properties of", &datasets[1]),
    }
}

/// Compares the records with the pool and puts both right.
async fn recover(inner: &Arc<Inner>, tree: &[Entry]) -> Result<()> {
    let records = &inner.records;
    records.give_up_all().await?;
    let mut generations = Vec::new();
    let rootfses = records.all_rootfses().await?;
    for rootfs in &rootfses {
        for n in records.generations(&rootfs.id).await? {
            generations.push((rootfs.id.clone(), n));
        }
    }
    let known = Known {
        images: records.images().await?,
        complete: records.all_layers(false).await?,
        removing: records.all_layers(true).await?,
        rootfses,
        generations,
    };
    let plan = plan(&inner.names, &known, &Disk::new(tree));
    for name in &plan.foreign {
        tracing::warn!(dataset = %name, "a dataset that is not nexcage's is left alone");
    }
    for (image, deleted) in &plan.moved {
        records.image_moved(*image, *deleted).await?;
    }
    for layer in &plan.lost_layers {
        tracing::error!(snapshot = %layer.snapshot(&inner.names), chain = %layer.chain, "the snapshot of a layer is not there; the layer has to be pulled again");
        records.forget_layer(layer, true).await?;
    }
    for image in &plan.lost_images {
        records.forget_image(*image).await?;
    }
    for id in &plan.lost_rootfses {
        tracing::info!(%id, "swept the record of a root filesystem that is not there");
        records.forget_rootfs(id).await?;
    }
    for name in plan.garbage {
        tracing::info!(dataset = %name, "sweeping a dataset that was left unfinished");
        inner.add_garbage(name);
    }
    settle(inner).await?;
    chores::round(inner).await;
    inner.wake_if_unfinished();
    Ok(())
}

/// Finishes what restoring left.
async fn settle(inner: &Arc<Inner>) -> Result<()> {
    for rootfs in inner.records.all_rootfses().await? {
        if rootfs.writable
            && inner.records.generations(&rootfs.id).await?.len() > 1
            && let Err(error) = inner.settle(&rootfs).await
        {
            tracing::warn!(%error, id = %rootfs.id, "what a restored root filesystem left cannot be put in order");
        }
    }
    Ok(())
}

/// Unmounts root filesystems that are not known.
fn sweep_mounts(with: &Blocking, dir: &Utf8Path, known: &HashSet<String>) -> Result<()> {
    let entries = dir.read_dir_utf8().doing("reading the directory", dir)?;
    for entry in entries {
        let entry = entry.doing("reading the directory", dir)?;
        if !known.contains(entry.file_name()) {
            let path = entry.path();
            with.kernel.unmount(path).doing("unmounting", path)?;
        }
    }
    Ok(())
}

/// Bytes that can still be written to a dataset: what its pool has, unless a quota on it or above it leaves less. `None` where
/// [`dataset_exists`] says no.
///
/// # Errors
///
/// [`LayerStoreError::Io`](nexcage_image_store::LayerStoreError::Io) if that cannot be found out.
pub async fn dataset_room(dataset: &str) -> Result<Option<u64>> {
    let Ok(zfs) = Programs::find() else {
        return Ok(None);
    };
    room(&zfs, dataset).await
}

pub(crate) async fn room(zfs: &dyn Zfs, dataset: &str) -> Result<Option<u64>> {
    Names::new(dataset)?;
    let doing = "asking for the room in the dataset";
    let entry = match zfs.get(dataset, &[ROOM]).await {
        Ok(entry) => entry,
        Err(e) if e.is(Refusal::NotFound) || e.is(Refusal::NoModule) => return Ok(None),
        Err(e) => return Err(e).doing_to(doing, dataset),
    };
    let value = entry.value(ROOM).unwrap_or_default();
    match value.parse() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) => Err(refused(
            std::io::ErrorKind::InvalidData,
            format!("{doing} {dataset}"),
            format!("{value:?} is no number of bytes"),
        )),
    }
}

/// Whether a dataset exists. Not if OpenZFS is not installed, its module is not loaded, or the pool is not
/// imported.
///
/// # Errors
///
/// [`LayerStoreError::Io`](nexcage_image_store::LayerStoreError::Io) if that cannot be found out.
pub async fn dataset_exists(dataset: &str) -> Result<bool> {
    let Ok(zfs) = Programs::find() else {
        return Ok(false);
    };
    exists(&zfs, dataset).await
}

async fn exists(zfs: &dyn Zfs, dataset: &str) -> Result<bool> {
    Names::new(dataset)?;
    match zfs.get(dataset, &["type"]).await {
        Ok(_) => Ok(true),
        Err(e) if e.is(Refusal::NotFound) || e.is(Refusal::NoModule) => Ok(false),
        Err(e) => Err(e).doing_to("looking for the dataset", dataset),
    }
}
