//! Unpacking and removing layers.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use camino::Utf8PathBuf;
use nexcage_failpoint::hit;
use nexcage_image_store::apply::{Applied, ApplyError, Whiteouts, apply_layer};
use nexcage_image_store::{ChainId, Digest, LayerStoreError, StoredLayer, Usage};
use rustix::fs::Mode;

use crate::error::{Doing, Result, foreign, no_layer, refused};
use crate::kernel::Tree;
use crate::names::{CHAIN, ROLE, is_missing, role, snapshot, tags};
use crate::records::{Begun, Measured, Target};
use crate::store::{Blocking, Inner};
use crate::zfs::{Kind, Refusal};

/// One call of `apply`.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) parent: Option<ChainId>,
    pub(crate) chain: ChainId,
    pub(crate) tar: Utf8PathBuf,
    pub(crate) diff_id: Digest,
    /// Set when nobody wants the layer any more.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Inner {
    /// Unpacks a layer.
    pub(crate) async fn apply(self: Arc<Self>, job: Job) -> Result<StoredLayer> {
        let target = match self.begin(&job).await? {
            Begun::Exists(layer) => return Ok(layer),
            Begun::Apply(target) => target,
        };
        hit("zfs.layer-row");
        let measured = match self.fill(&job, &target).await {
            Ok(measured) => measured,
            Err(error) => return Err(self.undo(&job.chain, &target, error).await),
        };
        hit("zfs.layer-snapshot");
        if !self.records.layer_complete(&target, measured).await? {
            // Another call was quicker with the same layer.
            let gone = self.undo(&job.chain, &target, no_layer(&job.chain)).await;
            return self.records.layer(&job.chain).await?.ok_or(gone);
        }
        Ok(StoredLayer {
            chain: job.chain,
            parent: job.parent,
            bytes: measured.own.bytes,
            inodes: measured.own.inodes,
        })
    }

    /// Finds the layer, takes it back from its removal, or decides where it is to be unpacked.
    async fn begin(&self, job: &Job) -> Result<Begun> {
        let _images = self.images.lock().await;
        if self.records.layer(&job.chain).await?.is_none()
            && let Some(doomed) = self.records.doomed_layer(&job.chain).await?
        {
            self.take_back(&doomed).await?;
        }
        (self.records)
            .begin_layer(job.parent.as_ref(), &job.chain)
            .await
    }

    /// Makes the dataset if need be, unpacks into it and takes the snapshot. When that returns, it is on
    /// the disk with all that was written before it.
    async fn fill(&self, job: &Job, target: &Target) -> Result<Measured> {
        let dataset = target.image.name(&self.names);
        if target.new {
            self.make(target, &dataset).await?;
        }
        hit("zfs.layer-dataset");
        let (tree, applied) = self.unpack(job.clone(), dataset.clone()).await?;
        hit("zfs.layer-unpacked");
        let name = snapshot(&dataset, &job.chain);
        let chain = job.chain.to_string();
        let tags = tags(&[(ROLE, role::LAYER), (CHAIN, &chain)]);
        self.zfs
            .snapshot(&name, &tags)
            .await
            .doing_to("taking the snapshot", &name)?;
        let total_inodes = self
            .blocking(move |_| tree.objects().doing_to("measuring", "an unpacked layer"))
            .await?;
        let (own, total) = self.snapshot_bytes(&name).await?;
        Ok(Measured {
            own: Usage {
                bytes: own,
                inodes: applied.inodes,
            },
            total: Usage {
                bytes: total,
                inodes: total_inodes,
            },
        })
    }

    async fn make(&self, target: &Target, dataset: &str) -> Result<()> {
        let tags = tags(&[(ROLE, role::IMAGE)]);
        let made = match &target.parent {
            None => self.zfs.create(dataset, &tags).await,
            Some(parent) => {
                let from = parent.snapshot(&self.names);
                self.zfs.clone_of(&from, dataset, &tags).await
            }
        };
        match made {
            // Numbers are not used twice, so it is not one of ours.
            Err(e) if e.is(Refusal::Exists) => Err(foreign(dataset)),
            made => made.doing_to("making the dataset", dataset),
        }
    }

    /// Unpacks into the dataset, which is open until the answer is dropped.
    async fn unpack(&self, job: Job, dataset: String) -> Result<(Tree, Applied)> {
        let (limits, limit) = (self.limits.clone(), self.unpack_deadline);
        let work = move |with: &Blocking| {
            let mut tar = Cancellable {
                // Not to be taken for a dataset that is missing.
                file: File::open(&job.tar)
                    .map_err(io::Error::other)
                    .doing("opening the layer", &job.tar)?,
                cancelled: &job.cancelled,
            };
            let tree = with.kernel.open(&dataset).doing_to("opening", &dataset)?;
            if job.parent.is_none() {
                rustix::fs::fchmod(&tree.dir, Mode::from_raw_mode(0o755))
                    .doing_to("setting the mode of", &dataset)?;
            }
            let whiteouts = Whiteouts::Remove;
            let applied = apply_layer(tree.dir.as_fd(), &mut tar, whiteouts, &limits)
                .map_err(|e| apply_error(&job.diff_id, e))?;
            Ok((tree, applied))
        };
        self.blocking_within(limit, work).await
    }

    /// Bytes of a snapshot: written since the one before it, and with all below it.
    async fn snapshot_bytes(&self, name: &str) -> Result<(u64, u64)> {
        let entry =
            (self.zfs.get(name, &["written", "referenced"]).await).doing_to("measuring", name)?;
        let number = |property| entry.value(property).and_then(|v| v.parse().ok());
        match (number("written"), number("referenced")) {
            (Some(own), Some(total)) => Ok((own, total)),
            _ => Err(refused(
                io::ErrorKind::InvalidData,
                format!("measuring {name}"),
                "zfs gave no numbers",
            )),
        }
    }

    /// Undoes an `apply`, and says why.
    async fn undo(
        &self,
        chain: &ChainId,
        target: &Target,
        error: LayerStoreError,
    ) -> LayerStoreError {
        let lost = is_missing(&error);
        if let Err(error) = self.records.give_up(target.layer).await {
            tracing::warn!(%error, "a layer that could not be unpacked is left until the next start");
        }
        {
            let _images = self.images.lock().await;
            self.collect_layers(Some(std::slice::from_ref(chain))).await;
        }
        self.wake_if_unfinished();
        if !lost {
            return error;
        }
        // Somebody has destroyed what it was to stand on.
        self.strike_lost_layers().await;
        match &target.parent {
            Some(parent) => no_layer(&parent.chain),
            None => error,
        }
    }

    /// Removes a layer from the records. Its snapshot goes with [`reclaim`](Self::reclaim): a dataset of which every layer is to
    /// go takes no more work than one layer of it.
    pub(crate) async fn remove_layer(self: Arc<Self>, chain: ChainId) -> Result<()> {
        let _images = self.images.lock().await;
        self.records.begin_removal(&chain).await?;
        hit("zfs.layer-removing");
        Ok(())
    }

    /// Destroys what these removed layers have left.
    pub(crate) async fn reclaim(self: Arc<Self>, removed: Vec<ChainId>) -> Result<()> {
        if !removed.is_empty() {
            let _images = self.images.lock().await;
            self.collect_layers(Some(&removed)).await;
        }
        self.wake_if_unfinished();
        Ok(())
    }

    /// Strikes off layers whose snapshots have been destroyed by somebody else.
    pub(crate) async fn strike_lost_layers(&self) {
        let _images = self.images.lock().await;
        if let Err(error) = self.try_strike_lost_layers().await {
            tracing::warn!(%error, "cannot compare the records with the pool");
        }
    }

    async fn try_strike_lost_layers(&self) -> Result<()> {
        // First the records: what is made after that is not missed.
        let layers = self.records.all_layers(false).await?;
        let images = [self.names.images()];
        let datasets = (self.zfs.list(&images, Kind::Filesystems, &["name"]).await)
            .doing_to("listing", &images[0])?;
        let datasets: Vec<String> = (datasets.into_iter().flatten())
            .filter(|name| *name != images[0])
            .collect();
        let snapshots = match datasets.is_empty() {
            true => Vec::new(),
            false => (self.zfs.list(&datasets, Kind::Snapshots, &["name"]).await)
                .doing_to("listing the snapshots of", &images[0])?,
        };
        let there: std::collections::HashSet<String> = snapshots.into_iter().flatten().collect();
        for layer in layers {
            let snapshot = layer.snapshot(&self.names);
            if !there.contains(&snapshot) {
                tracing::error!(%snapshot, chain = %layer.chain, "the snapshot of a layer has been destroyed; the layer has to be pulled again");
                self.records.forget_layer(&layer, true).await?;
                if self.records.layers_of(layer.image).await?.is_empty() {
                    self.add_garbage(layer.image.name(&self.names));
                }
            }
        }
        Ok(())
    }
}

/// A full disk is the machine's fault, not the layer's.
fn apply_error(diff_id: &Digest, error: ApplyError) -> LayerStoreError {
    match error {
        ApplyError::Io {
            entry,
            doing,
            source,
        } if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) =>
        {
            LayerStoreError::Io {
                doing: format!("unpacking layer {diff_id}: cannot {doing} {entry}"),
                source,
            }
        }
        source => LayerStoreError::Apply {
            diff_id: diff_id.clone(),
            source,
        },
    }
}

/// A file that cannot be read any more once nobody wants it.
struct Cancellable<'a> {
    file: File,
    cancelled: &'a AtomicBool,
}

impl Read for Cancellable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("the pull was given up"));
        }
        self.file.read(buffer)
    }
}
