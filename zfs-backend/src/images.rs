//! Datasets of layers that are to go: destroyed from the top, or kept in `deleted/` as long as something
//! stands on them.
//!
//! Everything here is called with [`Inner::images`] locked.

use std::collections::BTreeSet;

use nexcage_failpoint::hit;
use nexcage_image_store::ChainId;

use crate::error::{Doing, Result};
use crate::names::{CHAIN, ROLE, last, role};
use crate::records::{Image, Layer};
use crate::store::Inner;
use crate::zfs::{Kind, Refusal, ZfsError};

/// What became of something that was to be destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is gone.
    Gone,
    /// Something stands on it or uses it.
    Kept,
}

impl Inner {
    /// Destroys what can be destroyed of the layers that nobody knows any more, those that stand on others
    /// first; of these chains, or of all. What is left is tried again later. Says how many are gone.
    pub(crate) async fn collect_layers(&self, of: Option<&[ChainId]>) -> usize {
        let doomed = match self.records.all_layers(true).await {
            Ok(doomed) => doomed,
            Err(error) => {
                tracing::warn!(%error, "cannot read which layers are to be removed");
                return 0;
            }
        };
        let mut gone = 0;
        let mut kept = BTreeSet::new();
        for layer in doomed {
            // What keeps one layer of a dataset keeps those below it.
            if of.is_some_and(|chains| !chains.contains(&layer.chain))
                || kept.contains(&layer.image.n)
            {
                continue;
            }
            match self.collect_layer(&layer).await {
                Ok(Fate::Gone) => gone += 1,
                Ok(Fate::Kept) => {
                    kept.insert(layer.image.n);
                    self.later();
                }
                Err(error) => {
                    tracing::warn!(%error, chain = %layer.chain, "a removed layer is still on the disk; it is tried again");
                    self.later();
                }
            }
        }
        gone
    }

    async fn collect_layer(&self, layer: &Layer) -> Result<Fate> {
        let rows = self.records.layers_of(layer.image).await?;
        // Earlier steps of the same round may have moved or removed its dataset.
        let Some(layer) = rows.iter().find(|row| row.id == layer.id) else {
            return Ok(Fate::Gone);
        };
        if rows.iter().all(|row| row.removing) {
            return self.collect_image(layer.image, &rows).await;
        }
        match rows.first().is_some_and(|top| top.id == layer.id) {
            true => self.collect_top(layer, rows.get(1)).await,
            false => Ok(Fate::Kept),
        }
    }

    /// Destroys the uppermost layer of a dataset, and takes the dataset back to the one below.
    async fn collect_top(&self, layer: &Layer, below: Option<&Layer>) -> Result<Fate> {
        let snapshot = layer.snapshot(&self.names);
        match self.zfs.destroy(&snapshot).await {
            Err(e) if e.is(Refusal::NotFound) => {}
            Err(e) if is_used(&e) => return Ok(Fate::Kept),
            done => done.doing_to("destroying", &snapshot)?,
        }
        hit("zfs.layer-destroyed");
        let clean = match below {
            // If that is lost, too, the dataset is not built on any more.
            Some(below) => self
                .roll_back_to(&below.snapshot(&self.names))
                .await
                .unwrap_or(false),
            None => false,
        };
        self.records.forget_layer(layer, !clean).await?;
        Ok(Fate::Gone)
    }

    /// Takes a dataset back to its latest snapshot. `false` if it has later ones than this.
    pub(crate) async fn roll_back_to(&self, snapshot: &str) -> Result<bool> {
        match self.zfs.rollback(snapshot).await {
            Ok(()) => Ok(true),
            Err(e) if e.is(Refusal::Newer) => Ok(false),
            Err(e) => Err(e).doing_to("rolling back to", snapshot),
        }
    }

    /// Destroys a dataset in which every layer is to go; or moves it to `deleted/`.
    async fn collect_image(&self, image: Image, rows: &[Layer]) -> Result<Fate> {
        let name = image.name(&self.names);
        let Some(snapshots) = self.snapshots_of(&name).await? else {
            self.records.forget_image(image).await?;
            return Ok(Fate::Gone);
        };
        if self.destroy_with(&name, &snapshots).await? == Fate::Gone {
            hit("zfs.image-destroyed");
            self.records.forget_image(image).await?;
            return Ok(Fate::Gone);
        }
        // Snapshots that could be destroyed are gone; their rows are found out when they are asked for.
        if !image.deleted {
            let to = self.names.image(image.n, true);
            self.zfs
                .rename(&name, &to)
                .await
                .doing_to("renaming", &name)?;
            hit("zfs.image-renamed");
            self.records.image_moved(image, true).await?;
        }
        tracing::debug!(dataset = %name, layers = rows.len(), "a removed image stays until nothing stands on it");
        Ok(Fate::Kept)
    }

    /// The snapshots of an image's dataset, whoever made them, the oldest first; `None` if there is no such dataset of ours.
    async fn snapshots_of(&self, name: &str) -> Result<Option<Vec<String>>> {
        let entries = match self.zfs.stack(name, &[ROLE]).await {
            // It may be a snapshot that has gone meanwhile.
            Err(e) if e.is(Refusal::NotFound) && !self.is_ours(name, &[role::IMAGE]).await? => {
                return Ok(None);
            }
            entries => entries.doing_to("looking at", name)?,
        };
        let mut entries = entries.into_iter();
        match entries.next() {
            Some(dataset) if dataset.local(ROLE) == Some(role::IMAGE) => {
                Ok(Some(entries.map(|snapshot| snapshot.name).collect()))
            }
            _ => Ok(None),
        }
    }

    /// Whether a dataset is there and carries one of our tags.
    async fn is_ours(&self, name: &str, roles: &[&str]) -> Result<bool> {
        match self.zfs.get(name, &[ROLE]).await {
            Ok(entry) => Ok(entry.local(ROLE).is_some_and(|role| roles.contains(&role))),
            Err(e) if e.is(Refusal::NotFound) => Ok(false),
            Err(e) => Err(e).doing_to("looking at", name),
        }
    }

    /// Destroys a dataset of ours and its snapshots, whoever made them, but no other dataset: neither one
    /// below it nor a clone.
    pub(crate) async fn destroy_dataset(&self, name: &str) -> Result<Fate> {
        match self.zfs.destroy(name).await {
            Ok(()) => return Ok(Fate::Gone),
            Err(e) if e.is(Refusal::NotFound) => return Ok(Fate::Gone),
            Err(e) if e.is(Refusal::Children) => {}
            Err(e) if is_used(&e) => return Ok(Fate::Kept),
            Err(e) => return Err(e).doing_to("destroying", name),
        }
        let snapshots = (self
            .zfs
            .list(&[name.to_owned()], Kind::Snapshots, &["name"])
            .await)
            .doing_to("listing the snapshots of", name)?;
        let snapshots: Vec<String> = snapshots.into_iter().flatten().collect();
        self.destroy_with(name, &snapshots).await
    }

    /// Destroys a dataset's snapshots, which are given with the oldest first, and then the dataset.
    async fn destroy_with(&self, name: &str, snapshots: &[String]) -> Result<Fate> {
        if self.destroy_snapshots(name, snapshots).await? == Fate::Kept {
            return Ok(Fate::Kept);
        }
        match self.zfs.destroy(name).await {
            Err(e) if e.is(Refusal::NotFound) => Ok(Fate::Gone),
            Err(e) if is_used(&e) || e.is(Refusal::Children) => Ok(Fate::Kept),
            done => done.doing_to("destroying", name).map(|()| Fate::Gone),
        }
    }

    /// Destroys snapshots of one dataset: all at once if that can be, else as many as can be.
    async fn destroy_snapshots(&self, dataset: &str, snapshots: &[String]) -> Result<Fate> {
        if snapshots.is_empty() {
            return Ok(Fate::Gone);
        }
        match self.zfs.destroy_all(dataset, snapshots).await {
            Err(e) if e.is(Refusal::NotFound) => return Ok(Fate::Gone),
            // Nothing is gone then, whatever the reason; one by one it may go, or be said which does not.
            Err(e) if !matches!(e.refusal(), Refusal::Deadline | Refusal::Suspended) => {}
            done => {
                return done
                    .doing_to("destroying the snapshots of", dataset)
                    .map(|()| Fate::Gone);
            }
        }
        // The youngest first, so that what is left is a stack that can be taken back.
        for snapshot in snapshots.iter().rev() {
            match self.zfs.destroy(snapshot).await {
                Err(e) if e.is(Refusal::NotFound) => {}
                Err(e) if is_used(&e) => return Ok(Fate::Kept),
                done => done.doing_to("destroying", snapshot)?,
            }
        }
        Ok(Fate::Gone)
    }

    /// Makes a layer live again that was being removed, if its snapshot is still there.
    pub(crate) async fn take_back(&self, layer: &Layer) -> Result<()> {
        let snapshot = layer.snapshot(&self.names);
        let there = match self.zfs.get(&snapshot, &[CHAIN, "defer_destroy"]).await {
            Ok(entry) => {
                entry.local(CHAIN) == Some(layer.chain.to_string().as_str())
                    && entry.value("defer_destroy") != Some("on")
            }
            Err(e) if e.is(Refusal::NotFound) => false,
            Err(e) => return Err(e).doing_to("looking at", &snapshot),
        };
        if !there {
            return Ok(());
        }
        if layer.image.deleted {
            let (from, to) = (
                layer.image.name(&self.names),
                self.names.image(layer.image.n, false),
            );
            self.zfs
                .rename(&from, &to)
                .await
                .doing_to("renaming", &from)?;
            self.records.image_moved(layer.image, false).await?;
        }
        self.records.take_back(layer).await?;
        self.clean_images().await;
        Ok(())
    }

    /// Takes datasets back to their uppermost layers, so that they can be built on again.
    pub(crate) async fn clean_images(&self) {
        if let Err(error) = self.try_clean_images().await {
            tracing::debug!(%error, "a dataset could not be taken back to its uppermost layer");
        }
    }

    async fn try_clean_images(&self) -> Result<()> {
        for image in self.records.dirty_images().await? {
            let rows = self.records.layers_of(image).await?;
            if let Some(top) = rows.first()
                && self.roll_back_to(&top.snapshot(&self.names)).await?
            {
                self.records.image_clean(image).await?;
            }
        }
        Ok(())
    }

    /// Destroys datasets that have no record, or moves them to `deleted/`. Says how many are gone.
    pub(crate) async fn collect_garbage(&self) -> usize {
        let mut gone = 0;
        for name in self.garbage() {
            match self.collect_one(&name).await {
                Ok(Fate::Gone) => {
                    self.forget_garbage(&name);
                    gone += 1;
                }
                Ok(Fate::Kept) => self.later(),
                Err(error) => {
                    tracing::warn!(%error, dataset = %name, "a dataset without a record is still there; it is tried again");
                    self.later();
                }
            }
        }
        gone
    }

    async fn collect_one(&self, name: &str) -> Result<Fate> {
        if !self.is_ours(name, &[role::IMAGE, role::CONTAINER]).await? {
            return Ok(Fate::Gone);
        }
        if self.destroy_dataset(name).await? == Fate::Gone {
            return Ok(Fate::Gone);
        }
        self.doom(name).await.map(|()| Fate::Kept)
    }

    /// Moves a dataset to `deleted/`, where the chores find it.
    pub(crate) async fn doom(&self, name: &str) -> Result<()> {
        if name.starts_with(&format!("{}/", self.names.deleted())) {
            self.add_garbage(name.to_owned());
            return Ok(());
        }
        let to = self.names.doomed();
        match self.zfs.rename(name, &to).await {
            Err(e) if e.is(Refusal::NotFound) => {
                self.forget_garbage(name);
                return Ok(());
            }
            done => done.doing_to("renaming", name)?,
        }
        tracing::info!(from = %name, to = last(&to), "a dataset that is still in use goes later");
        self.forget_garbage(name);
        self.add_garbage(to);
        Ok(())
    }
}

/// Whether somebody still uses it.
pub(crate) fn is_used(error: &ZfsError) -> bool {
    matches!(error.refusal(), Refusal::Busy | Refusal::Clones)
}
