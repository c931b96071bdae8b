//! The store on the fake: see `zfs/fake.rs`. Unpacking needs root.

mod checkpoints;
mod crash;
mod life;
mod model;
mod pools;

use std::sync::Arc;

use camino::Utf8PathBuf;
use nexcage_image_store::apply::ApplyLimits;
use nexcage_image_store::{
    ChainId, Digest, LayerStore, LayerStoreError, MountOptions, RootfsId, RootfsOptions,
    SpooledLayer, StoredLayer,
};

use crate::zfs::fake::Fake;
use crate::{ZfsOptions, ZfsStore};

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: unpacking needs root");
    }
    root
}

/// A directory in memory: these tests write many databases, and no disk is cut off.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).unwrap()
}

/// A pool and directories for a store.
struct Place {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: scratch(),
            fake: Arc::new(Fake::new()),
        }
    }

    fn path(&self) -> Utf8PathBuf {
        Utf8PathBuf::try_from(self.dir.path().to_owned()).unwrap()
    }

    fn options(&self) -> ZfsOptions {
        ZfsOptions {
            dataset: "tank/n".into(),
            root: self.path().join("root"),
            run_dir: self.path().join("run"),
            limits: ApplyLimits::default(),
            properties: [("compression".to_owned(), "lz4".to_owned())].into(),
            checkpoints: 3,
        }
    }

    async fn try_open(&self) -> Result<ZfsStore, LayerStoreError> {
        ZfsStore::open_on(self.options(), self.fake.clone(), self.fake.clone()).await
    }

    async fn open(&self) -> ZfsStore {
        self.try_open().await.unwrap()
    }

    /// Datasets and snapshots but for those that are always there, without `tank/n/`.
    fn names(&self) -> Vec<String> {
        let always = ["images", "containers", "deleted", "fs"];
        let names = self.fake.names().into_iter();
        (names.map(|name| name["tank/n/".len()..].to_owned()))
            .filter(|name| !always.contains(&name.as_str()))
            .collect()
    }

    /// What the chores have to do is done.
    async fn settled(&self, names: &[&str]) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while self.names() != names {
            assert!(std::time::Instant::now() < deadline, "{:?}", self.names());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    fn content(&self, dataset: &str, file: &str) -> Option<String> {
        let path = self.fake.path(&format!("tank/n/{dataset}"))?;
        std::fs::read_to_string(path.join(file)).ok()
    }

    fn write(&self, dataset: &str, file: &str, text: &str) {
        let path = self.fake.path(&format!("tank/n/{dataset}")).unwrap();
        std::fs::write(path.join(file), text).unwrap();
    }
}

fn id(name: &str) -> RootfsId {
    RootfsId(name.to_owned())
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

/// A layer with one file.
fn file(name: &str) -> Vec<u8> {
    tar_of(&[(name, name)])
}

async fn apply(
    store: &ZfsStore,
    place: &Place,
    parent: Option<&ChainId>,
    tar: &[u8],
) -> Result<StoredLayer, LayerStoreError> {
    let diff_id = Digest::of(tar);
    let path = place.path().join(format!("{}.tar", diff_id.hex()));
    std::fs::write(&path, tar).unwrap();
    let layer = SpooledLayer {
        tar: path,
        diff_id,
        bytes: tar.len() as u64,
    };
    let chain = ChainId::on(parent, &layer.diff_id);
    store.apply(parent, &chain, &layer).await
}

/// Layers of one file each, on each other; their chain ids, lowest first.
async fn stack(store: &ZfsStore, place: &Place, files: &[&str]) -> Vec<ChainId> {
    let mut chain: Vec<ChainId> = Vec::new();
    for name in files {
        let stored = apply(store, place, chain.last(), &file(name))
            .await
            .unwrap();
        assert_eq!(stored.parent.as_ref(), chain.last());
        chain.push(stored.chain);
    }
    chain
}

/// Removes a layer and what it takes.
async fn remove(store: &ZfsStore, chain: &ChainId) -> Result<(), LayerStoreError> {
    store.remove_layer(chain).await?;
    store.reclaim(std::slice::from_ref(chain)).await;
    Ok(())
}

async fn create(store: &ZfsStore, name: &str, top: &ChainId) -> Result<(), LayerStoreError> {
    store
        .create_rootfs(&id(name), top, &RootfsOptions::default())
        .await
}

async fn mount(store: &ZfsStore, name: &str) -> Result<Utf8PathBuf, LayerStoreError> {
    store.mount_rootfs(&id(name), MountOptions::default()).await
}

fn text(error: &LayerStoreError) -> String {
    use std::error::Error;
    format!(
        "{error}: {}",
        error.source().map(ToString::to_string).unwrap_or_default()
    )
}
