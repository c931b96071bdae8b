//! How much everything takes, without a process per question.
//!
//! One listing of all containers answers every question for some seconds, and whoever asks meanwhile waits for
//! it. ZFS lists no inodes; those come from `statvfs(3)` on a mount of the dataset that is in no mount table, made
//! for that moment, and only if the dataset has changed since the last time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nexcage_image_store::{LayerStoreError, RootfsId, Usage};
use tokio::sync::Semaphore;

use crate::error::{Doing, Result, no_rootfs};
use crate::names::{is_busy, is_missing};
use crate::records::Rootfs;
use crate::store::Inner;
use crate::zfs::Kind;

/// How long a listing is good: kubelet asks every ten seconds, and others in between.
const FRESH: Duration = Duration::from_secs(8);

/// How long it is good for a container that is not in it.
const FRESH_FOR_NEW: Duration = Duration::from_secs(1);

/// Datasets opened at one time for their inodes.
const OPEN_AT_ONCE: usize = 4;

const COLUMNS: [&str; 4] = ["name", "used", "usedbydataset", "referenced"];

/// Space of a dataset, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Space {
    /// With snapshots and what is below it.
    used: u64,
    /// By the dataset alone, without what it shares with its origin.
    own: u64,
    /// With what it shares.
    referenced: u64,
}

type Listing = Arc<HashMap<String, Space>>;

/// Answers given lately.
#[derive(Debug)]
pub(crate) struct Usages {
    listing: tokio::sync::Mutex<Option<(Instant, Listing)>>,
    /// Inodes, and what the dataset took then.
    inodes: Mutex<HashMap<RootfsId, (Space, u64)>>,
    room: Semaphore,
}

impl Default for Usages {
    fn default() -> Self {
        Self {
            listing: tokio::sync::Mutex::default(),
            inodes: Mutex::default(),
            room: Semaphore::new(OPEN_AT_ONCE),
        }
    }
}

impl Usages {
    pub(crate) fn forget(&self, id: &RootfsId) {
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        inodes.remove(id);
    }

    fn known(&self, id: &RootfsId) -> Option<(Space, u64)> {
        let inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        inodes.get(id).copied()
    }

    fn remember(&self, id: &RootfsId, space: Space, count: u64) {
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        inodes.insert(id.clone(), (space, count));
    }
}

impl Inner {
    /// What was written to a root filesystem.
    pub(crate) async fn rootfs_usage(self: Arc<Self>, id: RootfsId) -> Result<Usage> {
        let rootfs = (self.records.rootfs(&id).await?).ok_or_else(|| no_rootfs(&id))?;
        match rootfs.writable {
            true => self.usage_of(&rootfs).await,
            false => Ok(Usage::default()),
        }
    }

    async fn usage_of(&self, rootfs: &Rootfs) -> Result<Usage> {
        let name = self.names.container(&rootfs.id, rootfs.current);
        let mut space = self.listing(FRESH).await?.get(&name).copied();
        if space.is_none() {
            space = self.listing(FRESH_FOR_NEW).await?.get(&name).copied();
        }
        let Some(space) = space else {
            // Made within the last second, or destroyed by somebody else.
            return Err(no_rootfs(&rootfs.id));
        };
        Ok(Usage {
            bytes: space.own,
            inodes: self.inodes_of(rootfs, &name, space).await?,
        })
    }

    async fn inodes_of(&self, rootfs: &Rootfs, name: &str, space: Space) -> Result<u64> {
        if let Some((at, count)) = self.usages.known(&rootfs.id)
            && at == space
        {
            return Ok(count);
        }
        // Never closed.
        let _room = self.usages.room.acquire().await;
        let dataset = name.to_owned();
        let all = self
            .blocking(move |with| {
                let tree = with.kernel.open(&dataset).doing_to("opening", &dataset)?;
                tree.objects().doing_to("measuring", &dataset)
            })
            .await;
        let all = match all {
            Err(e) if is_missing(&e) => return Err(no_rootfs(&rootfs.id)),
            all => all?,
        };
        let own = all.saturating_sub(rootfs.base_inodes);
        self.usages.remember(&rootfs.id, space, own);
        Ok(own)
    }

    /// Space of all datasets, not older than `age`.
    async fn listing(&self, age: Duration) -> Result<Listing> {
        let mut last = self.usages.listing.lock().await;
        if let Some((when, listing)) = last.as_ref()
            && when.elapsed() < age
        {
            return Ok(listing.clone());
        }
        // Those who wait for the lock meanwhile get this one.
        let asked = [self.names.root().to_owned(), self.names.containers()];
        let rows = (self.zfs.list(&asked, Kind::Filesystems, &COLUMNS).await)
            .doing_to("listing", self.names.root())?;
        let listing: Listing = Arc::new(rows.iter().filter_map(|row| space(row)).collect());
        *last = Some((Instant::now(), listing.clone()));
        Ok(listing)
    }

    /// Space all layers take, those included that wait for their end.
    pub(crate) async fn layers_usage(self: Arc<Self>) -> Result<Usage> {
        let listing = self.listing(FRESH).await?;
        let used = |name: &str| listing.get(name).map_or(0, |space| space.used);
        Ok(Usage {
            bytes: used(&self.names.images()).saturating_add(used(&self.names.deleted())),
            inodes: self.records.layers_usage().await?.inodes,
        })
    }

    /// Space all writable layers and their checkpoints take.
    pub(crate) async fn rootfses_usage(self: Arc<Self>) -> Result<Usage> {
        let listing = self.listing(FRESH).await?;
        let mut sum = Usage {
            bytes: (listing.get(&self.names.containers())).map_or(0, |space| space.used),
            inodes: 0,
        };
        for rootfs in self.records.all_rootfses().await? {
            if !rootfs.writable {
                continue;
            }
            match self.usage_of(&rootfs).await {
                Ok(usage) => sum.inodes = sum.inodes.saturating_add(usage.inodes),
                // Removed meanwhile.
                Err(LayerStoreError::NotFound { .. }) => {}
                // Being removed, most likely. One of hundreds must not keep the sum from being told.
                Err(e) if is_busy(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(sum)
    }
}

fn space(row: &[String]) -> Option<(String, Space)> {
    let [name, used, own, referenced] = row else {
        return None;
    };
    let space = Space {
        used: used.parse().ok()?,
        own: own.parse().ok()?,
        referenced: referenced.parse().ok()?,
    };
    Some((name.clone(), space))
}
