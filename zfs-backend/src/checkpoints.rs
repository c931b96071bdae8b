//! States of root filesystems that can be gone back to.
//!
//! A checkpoint is a snapshot of the root filesystem's dataset. Going back to the latest is a rollback. Going
//! back to an older one must keep the later ones, which a rollback would destroy; so that one makes a clone
//! of it, the next *generation*, and the record says which generation is the root filesystem. Then
//! the clone is promoted, until it stands on the image and owns its own past; older generations stand on it
//! and are kept for the checkpoints in them alone.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nexcage_failpoint::hit;
use nexcage_image_store::{Checkpoint, RootfsId};

use crate::error::{Doing, Result, no_checkpoint, no_rootfs};
use crate::images::is_used;
use crate::names::{ROLE, last, role, tags};
use crate::records::Rootfs;
use crate::rootfs::container_properties;
use crate::store::Inner;
use crate::zfs::{Kind, Refusal};

/// A checkpoint, and where it is.
#[derive(Clone, Debug)]
struct Kept {
    checkpoint: Checkpoint,
    generation: i64,
    /// Transaction group in which it was made: the order of checkpoints.
    txg: u64,
}

const COLUMNS: [&str; 6] = [
    "name",
    "createtxg",
    "creation",
    "used",
    ROLE,
    "defer_destroy",
];

impl Inner {
    /// Takes a checkpoint, and removes those beyond what is kept.
    pub(crate) async fn checkpoint_rootfs(self: Arc<Self>, id: RootfsId) -> Result<Checkpoint> {
        let rootfs = self.writable(&id).await?;
        let before = self.list(&id).await?;
        let name = self.take(&rootfs, &before).await?;
        hit("zfs.checkpoint-taken");
        let all = self.list(&id).await?;
        if let Some(many) = all.len().checked_sub(self.keep_checkpoints)
            && self.keep_checkpoints > 0
        {
            for old in &all[..many] {
                self.remove(&id, old).await?;
            }
            self.tidy(&rootfs).await?;
        }
        let made = all.into_iter().find(|kept| kept.checkpoint.name == name);
        Ok(made.ok_or_else(|| no_checkpoint(&id, &name))?.checkpoint)
    }

    /// Takes the snapshot, and says what it is called.
    async fn take(&self, rootfs: &Rootfs, before: &[Kept]) -> Result<String> {
        let dataset = self.names.container(&rootfs.id, rootfs.current);
        let tags = tags(&[(ROLE, role::CHECKPOINT)]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut seconds = now.map_or(0, |now| now.as_secs());
        loop {
            let name = format!("checkpoint-{seconds}");
            seconds += 1;
            // Not in any generation: promoting moves snapshots between them.
            if before.iter().any(|kept| kept.checkpoint.name == name) {
                continue;
            }
            let snapshot = format!("{dataset}@{name}");
            match self.zfs.snapshot(&snapshot, &tags).await {
                // One that has been removed, but something stands on it.
                Err(e) if e.is(Refusal::Exists) => {}
                Err(e) if e.is(Refusal::NotFound) => return Err(no_rootfs(&rootfs.id)),
                done => {
                    return done
                        .doing_to("taking the snapshot", &snapshot)
                        .map(|()| name);
                }
            }
        }
    }

    /// All checkpoints, in the order in which they were made.
    pub(crate) async fn checkpoints(self: Arc<Self>, id: RootfsId) -> Result<Vec<Checkpoint>> {
        self.writable(&id).await?;
        let all = self.list(&id).await?;
        Ok(all.into_iter().map(|kept| kept.checkpoint).collect())
    }

    /// Removes a checkpoint. If a generation stands on it, it goes with that.
    pub(crate) async fn remove_checkpoint(
        self: Arc<Self>,
        id: RootfsId,
        name: String,
    ) -> Result<()> {
        let rootfs = self.writable(&id).await?;
        let all = self.list(&id).await?;
        let found = all.iter().find(|kept| kept.checkpoint.name == name);
        self.remove(&id, found.ok_or_else(|| no_checkpoint(&id, &name))?)
            .await?;
        self.tidy(&rootfs).await
    }

    /// Goes back to a checkpoint.
    pub(crate) async fn restore_rootfs(
        self: Arc<Self>,
        id: RootfsId,
        name: Option<String>,
    ) -> Result<Checkpoint> {
        let rootfs = self.writable(&id).await?;
        let all = self.list(&id).await?;
        let found = match &name {
            None => all.last(),
            Some(name) => all.iter().find(|kept| kept.checkpoint.name == *name),
        };
        let wanted = name.as_deref().unwrap_or("the latest");
        let found = found.ok_or_else(|| no_checkpoint(&id, wanted))?;
        self.unmount(&id).await?;
        let snapshot = self.snapshot_of(&id, found);
        if found.generation != rootfs.current || !self.roll_back_to(&snapshot).await? {
            self.next_generation(&rootfs, &snapshot).await?;
        }
        self.usages.forget(&id);
        Ok(found.checkpoint.clone())
    }

    /// Makes a clone of a checkpoint the root filesystem.
    async fn next_generation(&self, rootfs: &Rootfs, snapshot: &str) -> Result<()> {
        let n = self.records.begin_generation(&rootfs.id).await?;
        hit("zfs.generation-row");
        let name = self.names.container(&rootfs.id, n);
        let properties = container_properties(rootfs);
        if let Err(e) = self.zfs.clone_of(snapshot, &name, &properties).await {
            self.records.forget_generation(&rootfs.id, n).await?;
            return Err(e).doing_to("cloning", snapshot);
        }
        hit("zfs.generation-cloned");
        self.records.switch_generation(&rootfs.id, n).await?;
        hit("zfs.generation-switched");
        let rootfs = Rootfs {
            current: n,
            ..rootfs.clone()
        };
        // The root filesystem is what it shall be; the rest is about space.
        if let Err(error) = self.settle(&rootfs).await {
            tracing::warn!(%error, id = %rootfs.id, "what a restored root filesystem left is put in order at the next start");
        }
        Ok(())
    }

    /// Lets the current generation stand on the image, and destroys generations without checkpoints.
    pub(crate) async fn settle(&self, rootfs: &Rootfs) -> Result<()> {
        let id = &rootfs.id;
        let current = self.names.container(id, rootfs.current);
        let generations = self.records.generations(id).await?;
        for _ in 0..generations.len() {
            let entry =
                (self.zfs.get(&current, &["origin"]).await).doing_to("looking at", &current)?;
            let origin = entry.value("origin").unwrap_or_default();
            let stands_on_older = (generations.iter())
                .any(|n| origin.starts_with(&format!("{}@", self.names.container(id, *n))));
            if !stands_on_older {
                break;
            }
            self.zfs
                .promote(&current)
                .await
                .doing_to("promoting", &current)?;
            hit("zfs.generation-promoted");
        }
        self.tidy(rootfs).await?;
        self.trim(rootfs).await
    }

    /// Destroys generations that hold no checkpoints.
    async fn tidy(&self, rootfs: &Rootfs) -> Result<()> {
        let id = &rootfs.id;
        let generations = self.records.generations(id).await?;
        if generations.len() < 2 {
            return Ok(());
        }
        let all = self.list(id).await?;
        for n in generations {
            let needed = n == rootfs.current || all.iter().any(|kept| kept.generation == n);
            if !needed && self.destroy_bare(&self.names.container(id, n)).await? {
                self.records.forget_generation(id, n).await?;
            }
        }
        Ok(())
    }

    /// Destroys a dataset without snapshots; whether it is gone. One with somebody else's snapshots stays until the
    /// root filesystem goes, and so does one that another generation stands on.
    async fn destroy_bare(&self, name: &str) -> Result<bool> {
        match self.zfs.destroy(name).await {
            Ok(()) => Ok(true),
            Err(e) if e.is(Refusal::NotFound) => Ok(true),
            Err(e) if is_used(&e) || e.is(Refusal::Children) => Ok(false),
            Err(e) => Err(e).doing_to("destroying", name),
        }
    }

    /// Throws away what was written to older generations after their last checkpoints.
    async fn trim(&self, rootfs: &Rootfs) -> Result<()> {
        let all = self.list(&rootfs.id).await?;
        for n in self.records.generations(&rootfs.id).await? {
            let latest = all.iter().rev().find(|kept| kept.generation == n);
            if n != rootfs.current
                && let Some(latest) = latest
            {
                let snapshot = self.snapshot_of(&rootfs.id, latest);
                self.roll_back_to(&snapshot).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, id: &RootfsId, kept: &Kept) -> Result<()> {
        let snapshot = self.snapshot_of(id, kept);
        match self.zfs.destroy(&snapshot).await {
            Err(e) if e.is(Refusal::NotFound) => Ok(()),
            Err(e) if is_used(&e) => {
                (self.zfs.destroy_later(&snapshot).await).doing_to("destroying later", &snapshot)
            }
            done => done.doing_to("destroying", &snapshot),
        }
    }

    fn snapshot_of(&self, id: &RootfsId, kept: &Kept) -> String {
        let dataset = self.names.container(id, kept.generation);
        format!("{dataset}@{}", kept.checkpoint.name)
    }

    /// The checkpoints of all generations, the oldest first.
    async fn list(&self, id: &RootfsId) -> Result<Vec<Kept>> {
        let mut all = Vec::new();
        for n in self.records.generations(id).await? {
            let name = self.names.container(id, n);
            let rows = match self
                .zfs
                .list(std::slice::from_ref(&name), Kind::Snapshots, &COLUMNS)
                .await
            {
                Err(e) if e.is(Refusal::NotFound) => continue,
                rows => rows.doing_to("listing the snapshots of", &name)?,
            };
            all.extend(rows.iter().filter_map(|row| kept(row, n)));
        }
        all.sort_by_key(|kept| kept.txg);
        Ok(all)
    }
}

/// A row of a listing, if it is a checkpoint of ours. Other snapshots inherit the role of their dataset.
fn kept(row: &[String], generation: i64) -> Option<Kept> {
    let [name, txg, created, used, is_role, deferred] = row else {
        return None;
    };
    if is_role != role::CHECKPOINT || deferred == "on" {
        return None;
    }
    Some(Kept {
        checkpoint: Checkpoint {
            name: last(name).to_owned(),
            created: created.parse().ok()?,
            bytes: used.parse().ok()?,
        },
        generation,
        txg: txg.parse().ok()?,
    })
}
