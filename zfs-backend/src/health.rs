//! Whether the pool can be used.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use nexcage_image_store::LayerStoreError;

use crate::error::{Doing, Result, refused};
use crate::store::{Blocking, Inner};

/// How long a good answer is good. The kernel is asked for the pool's state every time.
const FRESH: Duration = Duration::from_secs(5);

/// For one attempt to write.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is known of the pool.
#[derive(Debug, Default)]
pub(crate) struct Health {
    written: Mutex<Option<Instant>>,
    /// An attempt to write has not ended yet. It may never: then there is no second one.
    writing: Arc<AtomicBool>,
}

impl Inner {
    /// Proves that the pool is imported, works and can be written to.
    pub(crate) async fn check(&self) -> Result<()> {
        let pool = self.names.pool().to_owned();
        let state = self
            .blocking(move |with| {
                with.kernel
                    .pool_state(&pool)
                    .doing_to("asking for the state of the pool", &pool)
            })
            .await?;
        match state.as_deref() {
            Some("ONLINE" | "DEGRADED") => {}
            state => return Err(self.unusable(state)),
        }
        let last = *self
            .health
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|when| when.elapsed() < FRESH) {
            return Ok(());
        }
        if self.health.writing.swap(true, Ordering::SeqCst) {
            return Err(self.unusable(Some("one that does not answer")));
        }
        let done = Unset(self.health.writing.clone());
        let (dataset, path) = (self.names.fs(), self.places.fs.clone());
        self.blocking_within(DEADLINE, move |with| {
            let _done = done;
            mount_fs(with, &dataset, &path)?;
            write(&path)
        })
        .await?;
        *self
            .health
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }

    /// What to do about a pool that is not there or does not work.
    pub(crate) fn unusable(&self, state: Option<&str>) -> LayerStoreError {
        let pool = self.names.pool();
        let (kind, why) = match state {
            None => (
                io::ErrorKind::NotFound,
                format!("the pool {pool} is not imported; import it with: zpool import {pool}"),
            ),
            Some(state) => (
                io::ErrorKind::ResourceBusy,
                format!(
                    "the state of the pool {pool} is {state}; see zpool status -x, then: zpool clear {pool}"
                ),
            ),
        };
        refused(
            kind,
            format!("using the dataset {}", self.names.root()),
            why,
        )
    }
}

/// Mounts the dataset that stands for all of them, if it is not mounted.
pub(crate) fn mount_fs(with: &Blocking, dataset: &str, path: &Utf8Path) -> Result<()> {
    let mounted = with.kernel.mounted(path).doing("looking at", path)?;
    if mounted.as_deref() == Some(dataset) {
        return Ok(());
    }
    if mounted.is_some() {
        // Of another pool or name.
        with.kernel.unmount(path).doing("unmounting", path)?;
    }
    std::fs::create_dir_all(path).doing("making the directory", path)?;
    with.kernel
        .mount(dataset, path, None)
        .doing_to("mounting", dataset)
}

fn write(path: &Utf8Path) -> Result<()> {
    let probe = path.join("check");
    let written = std::fs::write(&probe, b"nexcage");
    // In a full pool there may be room for an empty file.
    let removed = std::fs::remove_file(&probe);
    written.doing("writing", &probe)?;
    removed.doing("removing", &probe)
}

/// Takes a flag back when dropped.
struct Unset(Arc<AtomicBool>);

impl Drop for Unset {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
