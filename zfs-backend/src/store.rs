//! The store: the seam's methods, each one task.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::apply::ApplyLimits;
use nexcage_image_store::{
    ChainId, Checkpoint, LayerStore, LayerStoreError, MountOptions, RootfsId, RootfsOptions,
    SpooledLayer, StoredLayer, Usage,
};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::chores;
use crate::error::{DRIVER, Result, refused};
use crate::health::Health;
use crate::kernel::{Kernel, Linux};
use crate::layers::Job;
use crate::names::{Names, Places};
use crate::open::open;
use crate::records::Records;
use crate::rootfs::View;
use crate::usage::Usages;
use crate::zfs::{Programs, Zfs};

/// For one call of the kernel. It ends at once or, on a suspended pool, never.
const DEADLINE: Duration = Duration::from_secs(60);

/// For unpacking one layer.
const UNPACK_DEADLINE: Duration = Duration::from_secs(3600);

/// Where a [`ZfsStore`] keeps its things, and how.
#[derive(Clone, Debug)]
pub struct ZfsOptions {
    /// The dataset that everything is made in, as in `tank/nexcage`. It must exist; its mount point and
    /// properties are not touched.
    pub dataset: String,
    /// Directory for the records and for the mount point of [`LayerStore::mountpoint`], on the host's
    /// own file system.
    pub root: Utf8PathBuf,
    /// Directory for mount points; best on a tmpfs, so that it is empty after a reboot. A user
    /// namespace's root must be able to reach it: it and every directory above it need mode `o+x`.
    pub run_dir: Utf8PathBuf,
    /// What one layer may hold.
    pub limits: ApplyLimits,
    /// ZFS properties of all images and containers (`compression`, `recordsize`, ...); containers may
    /// have others.
    pub properties: std::collections::BTreeMap<String, String>,
    /// Checkpoints kept of one root filesystem; the oldest go first. 0 for no limit.
    pub checkpoints: usize,
}

/// A [`LayerStore`] on OpenZFS. Dropping it ends its task.
#[derive(Debug)]
pub struct ZfsStore {
    inner: Arc<Inner>,
    _chores: AbortOnDropHandle<()>,
}

/// What tasks work with.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) names: Names,
    pub(crate) places: Places,
    pub(crate) limits: ApplyLimits,
    pub(crate) unpack_deadline: Duration,
    pub(crate) keep_checkpoints: usize,
    pub(crate) zfs: Arc<dyn Zfs>,
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) records: Records,
    /// Held while datasets of layers are made part of the records, moved or destroyed; not while a layer
    /// is unpacked.
    pub(crate) images: tokio::sync::Mutex<()>,
    pub(crate) usages: Usages,
    pub(crate) health: Health,
    /// Datasets of ours that no record names.
    garbage: Mutex<BTreeSet<String>>,
    /// Something could not be destroyed yet.
    unfinished: AtomicBool,
    /// Wakes the chores.
    pub(crate) wake: Notify,
}

impl ZfsStore {
    /// Opens or creates the store and puts right what a crash left behind. Must be called as root, and
    /// by one process at a time per dataset.
    ///
    /// # Errors
    ///
    /// [`LayerStoreError::Io`] if the pool is not imported, the dataset does not exist or belongs to
    /// another store, or a dataset below it is not nexcage's; [`LayerStoreError::Unsupported`] for a property that
    /// may not be set; [`LayerStoreError::Database`] if the records cannot be read.
    pub async fn open(options: ZfsOptions) -> Result<Self> {
        let zfs = Programs::find().map_err(|e| LayerStoreError::Io {
            doing: format!("using the dataset {}", options.dataset),
            source: e.into(),
        })?;
        Self::open_on(options, Arc::new(zfs), Arc::new(Linux)).await
    }

    /// The same on whatever plays OpenZFS.
    pub(crate) async fn open_on(
        options: ZfsOptions,
        zfs: Arc<dyn Zfs>,
        kernel: Arc<dyn Kernel>,
    ) -> Result<Self> {
        let names = Names::new(&options.dataset)?;
        let places = Places::new(&options.root, &options.run_dir);
        places.make()?;
        let inner = Arc::new(Inner {
            records: Records::open(&places.root.join("zfs.db"))?,
            names,
            places,
            limits: options.limits,
            unpack_deadline: UNPACK_DEADLINE,
            keep_checkpoints: options.checkpoints,
            zfs,
            kernel,
            images: tokio::sync::Mutex::default(),
            usages: Usages::default(),
            health: Health::default(),
            garbage: Mutex::default(),
            unfinished: AtomicBool::new(false),
            wake: Notify::new(),
        });
        open(&inner, &options.properties).await?;
        let chores = tokio::spawn(chores::work(inner.clone()));
        Ok(Self {
            inner,
            _chores: AbortOnDropHandle::new(chores),
        })
    }

    /// Runs `work` to its end even if nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match tokio::spawn(work).await {
            Ok(done) => done,
            Err(e) => Err(task_failed(e)),
        }
    }
}

fn task_failed(e: tokio::task::JoinError) -> LayerStoreError {
    LayerStoreError::Io {
        doing: "running a task of the storage driver".to_owned(),
        source: std::io::Error::other(e),
    }
}

impl Inner {
    /// Runs `work` where it may block, and gives up waiting for it after a while.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Blocking) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.blocking_within(DEADLINE, work).await
    }

    pub(crate) async fn blocking_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnOnce(&Blocking) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let with = Blocking {
            kernel: self.kernel.clone(),
        };
        let task = tokio::task::spawn_blocking(move || work(&with));
        match tokio::time::timeout(deadline, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(e)) => Err(task_failed(e)),
            Err(_) => Err(refused(
                std::io::ErrorKind::TimedOut,
                format!("waiting for the pool {}", self.names.pool()),
                format!(
                    "it did not answer within {} s; see zpool status",
                    deadline.as_secs()
                ),
            )),
        }
    }

    fn garbage_set(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.garbage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Datasets to be destroyed. Containers before images, which they may stand on.
    pub(crate) fn garbage(&self) -> Vec<String> {
        let images = format!("{}/", self.names.images());
        let mut names: Vec<_> = self.garbage_set().iter().cloned().collect();
        names.sort_by_key(|name| name.starts_with(&images));
        names
    }

    pub(crate) fn add_garbage(&self, name: String) {
        self.garbage_set().insert(name);
        self.later();
    }

    pub(crate) fn forget_garbage(&self, name: &str) {
        self.garbage_set().remove(name);
    }

    /// Something is left to be destroyed.
    pub(crate) fn later(&self) {
        self.unfinished.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// Wakes the chores if something is left for them.
    pub(crate) fn wake_if_unfinished(&self) {
        if self.is_unfinished() {
            self.wake.notify_one();
        }
    }

    /// Whether something was left since this was asked last.
    pub(crate) fn take_unfinished(&self) -> bool {
        self.unfinished.swap(false, Ordering::Relaxed)
    }
}

/// What work on a blocking thread may use.
#[derive(Debug)]
pub(crate) struct Blocking {
    pub(crate) kernel: Arc<dyn Kernel>,
}

/// Sets a flag when dropped.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl LayerStore for ZfsStore {
    fn driver(&self) -> &'static str {
        DRIVER
    }

    async fn check(&self) -> Result<()> {
        self.inner.records.check().await?;
        self.inner.check().await
    }

    fn mountpoint(&self) -> &Utf8Path {
        &self.inner.places.fs
    }

    async fn layer(&self, chain: &ChainId) -> Result<Option<StoredLayer>> {
        self.inner.records.layer(chain).await
    }

    async fn layers(&self) -> Result<Vec<StoredLayer>> {
        self.inner.records.layers().await
    }

    async fn apply(
        &self,
        parent: Option<&ChainId>,
        chain: &ChainId,
        layer: &SpooledLayer,
    ) -> Result<StoredLayer> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job {
            parent: parent.cloned(),
            chain: chain.clone(),
            tar: layer.tar.clone(),
            diff_id: layer.diff_id.clone(),
            cancelled: cancelled.clone(),
        };
        let _cancel = SetOnDrop(cancelled);
        self.run(self.inner.clone().apply(job)).await
    }

    async fn remove_layer(&self, chain: &ChainId) -> Result<()> {
        self.run(self.inner.clone().remove_layer(chain.clone()))
            .await
    }

    async fn reclaim(&self, removed: &[ChainId]) {
        let reclaim = self.inner.clone().reclaim(removed.to_vec());
        if let Err(error) = self.run(reclaim).await {
            tracing::warn!(%error, "removed layers are still on the disk");
        }
    }

    async fn create_rootfs(
        &self,
        id: &RootfsId,
        top: &ChainId,
        options: &RootfsOptions,
    ) -> Result<()> {
        let (id, top, options) = (id.clone(), top.clone(), options.clone());
        self.run(self.inner.clone().create_rootfs(id, top, options))
            .await
    }

    async fn mount_rootfs(&self, id: &RootfsId, options: MountOptions) -> Result<Utf8PathBuf> {
        self.run(self.inner.clone().mount_rootfs(id.clone(), options))
            .await
    }

    async fn unmount_rootfs(&self, id: &RootfsId) -> Result<()> {
        self.run(self.inner.clone().unmount_rootfs(id.clone()))
            .await
    }

    async fn remove_rootfs(&self, id: &RootfsId) -> Result<()> {
        self.run(self.inner.clone().remove_rootfs(id.clone())).await
    }

    async fn dismantle(&self) -> Result<()> {
        self.run(self.inner.clone().dismantle()).await
    }

    async fn rootfses(&self) -> Result<Vec<RootfsId>> {
        let all = self.inner.records.all_rootfses().await?;
        Ok(all.into_iter().map(|rootfs| rootfs.id).collect())
    }

    async fn rootfs_usage(&self, id: &RootfsId) -> Result<Usage> {
        self.run(self.inner.clone().rootfs_usage(id.clone())).await
    }

    async fn mount_readonly(
        &self,
        id: &RootfsId,
        top: &ChainId,
        options: MountOptions,
    ) -> Result<Utf8PathBuf> {
        let view = View {
            id: id.clone(),
            top: top.clone(),
        };
        self.run(self.inner.clone().mount_readonly(view, options))
            .await
    }

    async fn layers_usage(&self) -> Result<Usage> {
        self.run(self.inner.clone().layers_usage()).await
    }

    async fn rootfses_usage(&self) -> Result<Usage> {
        self.run(self.inner.clone().rootfses_usage()).await
    }

    async fn checkpoint_rootfs(&self, id: &RootfsId) -> Result<Checkpoint> {
        self.run(self.inner.clone().checkpoint_rootfs(id.clone()))
            .await
    }

    async fn checkpoints(&self, id: &RootfsId) -> Result<Vec<Checkpoint>> {
        self.run(self.inner.clone().checkpoints(id.clone())).await
    }

    async fn restore_rootfs(&self, id: &RootfsId, name: Option<&str>) -> Result<Checkpoint> {
        let name = name.map(str::to_owned);
        self.run(self.inner.clone().restore_rootfs(id.clone(), name))
            .await
    }

    async fn remove_checkpoint(&self, id: &RootfsId, name: &str) -> Result<()> {
        let work = self
            .inner
            .clone()
            .remove_checkpoint(id.clone(), name.to_owned());
        self.run(work).await
    }
}
