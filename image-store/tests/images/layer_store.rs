//! A layer store in memory, with the behaviour that matters to the image store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::{
    ChainId, Digest, LayerStore, LayerStoreError, MountOptions, RootfsId, RootfsOptions,
    SpooledLayer, StoredLayer, Usage,
};

#[derive(Debug, Default)]
pub(crate) struct MemoryLayers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    layers: BTreeMap<ChainId, StoredLayer>,
    /// Top layers of root filesystems.
    used: BTreeSet<ChainId>,
    busy: BTreeSet<ChainId>,
    /// Every apply that did something.
    applied: Vec<ChainId>,
    removed: Vec<ChainId>,
    /// What was removed and not reclaimed.
    left: BTreeSet<ChainId>,
    delay: Duration,
}

/// Notes that a layer is being worked on; panics if it is already.
struct Busy<'a>(&'a MemoryLayers, ChainId);

impl<'a> Busy<'a> {
    fn new(store: &'a MemoryLayers, chain: &ChainId) -> Self {
        let fresh = store.state.lock().unwrap().busy.insert(chain.clone());
        assert!(fresh, "two calls for layer {chain} at a time");
        Self(store, chain.clone())
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().busy.remove(&self.1);
    }
}

impl MemoryLayers {
    pub(crate) fn applied(&self) -> Vec<ChainId> {
        self.state.lock().unwrap().applied.clone()
    }

    pub(crate) fn removed(&self) -> Vec<ChainId> {
        self.state.lock().unwrap().removed.clone()
    }

    /// Whether all that was removed has been reclaimed.
    pub(crate) fn is_reclaimed(&self) -> bool {
        self.state.lock().unwrap().left.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().unwrap().layers.len()
    }

    /// Whether a layer is being applied or removed now.
    pub(crate) fn is_busy(&self) -> bool {
        !self.state.lock().unwrap().busy.is_empty()
    }

    /// How long an apply takes.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    /// A container stands on a layer, or no longer.
    pub(crate) fn set_used(&self, chain: &ChainId, used: bool) {
        let mut state = self.state.lock().unwrap();
        if used {
            state.used.insert(chain.clone());
        } else {
            state.used.remove(chain);
        }
    }

    /// Somebody clears the store behind our back.
    pub(crate) fn lose(&self, chain: &ChainId) {
        self.state.lock().unwrap().layers.remove(chain);
    }
}

fn unsupported(what: &str) -> LayerStoreError {
    LayerStoreError::Unsupported {
        driver: "memory",
        what: what.to_owned(),
    }
}

#[async_trait]
impl LayerStore for MemoryLayers {
    fn driver(&self) -> &'static str {
        "memory"
    }

    async fn check(&self) -> Result<(), LayerStoreError> {
        Ok(())
    }

    fn mountpoint(&self) -> &Utf8Path {
        Utf8Path::new("/")
    }

    async fn layer(&self, chain: &ChainId) -> Result<Option<StoredLayer>, LayerStoreError> {
        Ok(self.state.lock().unwrap().layers.get(chain).cloned())
    }

    async fn layers(&self) -> Result<Vec<StoredLayer>, LayerStoreError> {
        Ok(self
            .state
            .lock()
            .unwrap()
            .layers
            .values()
            .cloned()
            .collect())
    }

    async fn apply(
        &self,
        parent: Option<&ChainId>,
        chain: &ChainId,
        layer: &SpooledLayer,
    ) -> Result<StoredLayer, LayerStoreError> {
        let _busy = Busy::new(self, chain);
        if let Some(known) = self.layer(chain).await? {
            return Ok(known);
        }
        if let Some(parent) = parent {
            let known = self.layer(parent).await?.is_some();
            assert!(known, "layer {chain} before its parent {parent}");
        }
        let delay = self.state.lock().unwrap().delay;
        tokio::time::sleep(delay).await;
        let tar = std::fs::read(&layer.tar).unwrap();
        assert_eq!(Digest::of(&tar), layer.diff_id);
        assert_eq!(tar.len() as u64, layer.bytes);
        assert_eq!(ChainId::on(parent, &layer.diff_id), *chain);
        let stored = StoredLayer {
            chain: chain.clone(),
            parent: parent.cloned(),
            bytes: layer.bytes,
            inodes: 1,
        };
        let mut state = self.state.lock().unwrap();
        state.layers.insert(chain.clone(), stored.clone());
        state.applied.push(chain.clone());
        Ok(stored)
    }

    async fn reclaim(&self, removed: &[ChainId]) {
        let mut state = self.state.lock().unwrap();
        for chain in removed {
            state.left.remove(chain);
        }
    }

    async fn remove_layer(&self, chain: &ChainId) -> Result<(), LayerStoreError> {
        let _busy = Busy::new(self, chain);
        tokio::task::yield_now().await;
        let mut state = self.state.lock().unwrap();
        let stands = state
            .layers
            .values()
            .any(|l| l.parent.as_ref() == Some(chain));
        if stands || state.used.contains(chain) {
            return Err(LayerStoreError::InUse {
                chain: chain.clone(),
            });
        }
        if state.layers.remove(chain).is_some() {
            state.removed.push(chain.clone());
            state.left.insert(chain.clone());
        }
        Ok(())
    }

    async fn create_rootfs(
        &self,
        _id: &RootfsId,
        _top: &ChainId,
        _options: &RootfsOptions,
    ) -> Result<(), LayerStoreError> {
        Err(unsupported("root filesystems"))
    }

    async fn mount_rootfs(
        &self,
        _id: &RootfsId,
        _options: MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError> {
        Err(unsupported("root filesystems"))
    }

    async fn unmount_rootfs(&self, _id: &RootfsId) -> Result<(), LayerStoreError> {
        Ok(())
    }

    async fn remove_rootfs(&self, _id: &RootfsId) -> Result<(), LayerStoreError> {
        Ok(())
    }

    async fn rootfses(&self) -> Result<Vec<RootfsId>, LayerStoreError> {
        Ok(Vec::new())
    }

    async fn rootfs_usage(&self, _id: &RootfsId) -> Result<Usage, LayerStoreError> {
        Err(unsupported("root filesystems"))
    }

    async fn mount_readonly(
        &self,
        _id: &RootfsId,
        _top: &ChainId,
        _options: MountOptions,
    ) -> Result<Utf8PathBuf, LayerStoreError> {
        Err(unsupported("root filesystems"))
    }

    async fn layers_usage(&self) -> Result<Usage, LayerStoreError> {
        let state = self.state.lock().unwrap();
        Ok(Usage {
            bytes: state.layers.values().map(|l| l.bytes).sum(),
            inodes: state.layers.len() as u64,
        })
    }

    async fn rootfses_usage(&self) -> Result<Usage, LayerStoreError> {
        Ok(Usage::default())
    }
}
