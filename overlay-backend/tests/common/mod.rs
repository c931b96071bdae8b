//! A store in a directory of its own, and layers to put into it.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "shared by test files, each of which uses some of it"
)]

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::apply::ApplyLimits;
use nexcage_image_store::{
    ChainId, Digest, LayerStore, LayerStoreError, MountOptions, RootfsId, RootfsOptions,
    SpooledLayer, StoredLayer,
};
use nexcage_overlay::{OverlayOptions, OverlayStore};
use rustix::mount::{UnmountFlags, unmount};

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: overlay mounts need root");
    }
    root
}

/// A directory for a store; whatever is still mounted in it goes when dropped.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("nexcage-overlay-")
            .tempdir()
            .unwrap();
        Self { dir }
    }

    pub fn path(&self) -> Utf8PathBuf {
        Utf8PathBuf::try_from(self.dir.path().to_owned()).unwrap()
    }

    pub fn root(&self) -> Utf8PathBuf {
        self.path().join("root")
    }

    pub fn options(&self) -> OverlayOptions {
        OverlayOptions {
            root: self.root(),
            run_dir: self.path().join("run"),
            limits: ApplyLimits::default(),
        }
    }

    pub fn open(&self) -> OverlayStore {
        OverlayStore::open(self.options()).unwrap()
    }

    /// Mount points below this place.
    pub fn mounts(&self) -> Vec<String> {
        let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mine = format!("{}/", self.path());
        (info.lines())
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| point.starts_with(&mine))
            .map(str::to_owned)
            .collect()
    }

    /// Names in a directory of the store.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<_> = (self.root().join(dir).read_dir_utf8().unwrap())
            .map(|e| e.unwrap().file_name().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Waits for the store's thread: the trash is empty and the last layer flushed.
    pub fn settled(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !self.names("trash").is_empty() {
            assert!(
                std::time::Instant::now() < deadline,
                "the trash is not emptied"
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev() {
            let _ = unmount(point.as_str(), UnmountFlags::DETACH);
        }
    }
}

pub fn id(name: &str) -> RootfsId {
    RootfsId(name.to_owned())
}

/// A layer of files, by name and content; names may be whiteouts, or end with a slash.
pub fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        let is_dir = path.ends_with('/');
        header.set_entry_type(if is_dir {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(if is_dir { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

/// Layers that add, replace, remove and hide.
pub fn three_layers() -> Vec<Vec<u8>> {
    vec![
        tar_of(&[
            ("etc/", ""),
            ("etc/a", "lowest"),
            ("etc/b", "lowest"),
            ("data/", ""),
            ("data/x", ""),
            ("gone/", ""),
            ("gone/x", ""),
        ]),
        tar_of(&[
            ("etc/a", "middle"),
            (".wh.gone", ""),
            ("data/.wh..wh..opq", ""),
            ("data/y", ""),
        ]),
        tar_of(&[("etc/.wh.b", ""), ("gone/", ""), ("gone/z", "")]),
    ]
}

/// Puts an archive into the spool.
pub fn spool(place: &Utf8Path, tar: &[u8]) -> SpooledLayer {
    let diff_id = Digest::of(tar);
    let path = place.join(format!("{}.tar", diff_id.hex()));
    std::fs::write(&path, tar).unwrap();
    SpooledLayer {
        tar: path,
        diff_id,
        bytes: tar.len() as u64,
    }
}

/// Applies one layer.
pub async fn apply(
    store: &OverlayStore,
    place: &Place,
    parent: Option<&ChainId>,
    tar: &[u8],
) -> Result<StoredLayer, LayerStoreError> {
    let layer = spool(&place.path(), tar);
    let chain = ChainId::on(parent, &layer.diff_id);
    store.apply(parent, &chain, &layer).await
}

/// Applies layers on each other and gives their chain ids, lowest first.
pub async fn stack(store: &OverlayStore, place: &Place, layers: &[Vec<u8>]) -> Vec<ChainId> {
    let mut chain: Vec<ChainId> = Vec::new();
    for tar in layers {
        let stored = apply(store, place, chain.last(), tar).await.unwrap();
        assert_eq!(stored.parent.as_ref(), chain.last());
        chain.push(stored.chain);
    }
    chain
}

/// Makes and mounts a root filesystem.
pub async fn rootfs(store: &OverlayStore, name: &str, top: &ChainId) -> Utf8PathBuf {
    let options = RootfsOptions::default();
    store.create_rootfs(&id(name), top, &options).await.unwrap();
    store
        .mount_rootfs(&id(name), MountOptions::default())
        .await
        .unwrap()
}
