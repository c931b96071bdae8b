//! Pod sandboxes: one file per transition.
//!
//! `run` makes one, `stop` ends and removes it, `watch` notices when it ends by itself, `update` changes its `limits`; `network` and
//! `files` are what `run` and `stop` do outside the sandbox's backend. `record` says which phase allows what.

mod files;
mod limits;
mod network;
mod record;
mod run;
mod spec;
mod stop;
mod update;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use nexcage_sandbox::Edit;
use tokio::sync::{Mutex, watch as channel};

pub(crate) use files::PodFiles;
pub(crate) use limits::PodLimits;
pub(crate) use record::PodPhase;
pub(crate) use record::PodRecord;
pub(crate) use run::run_pod;
pub(crate) use spec::Dns;
pub(crate) use spec::PodSpec;
pub(crate) use spec::PortMapping;
pub(crate) use spec::Protocol;
pub(crate) use stop::remove_everything;
pub(crate) use stop::remove_files;
pub(crate) use stop::remove_logs;
pub(crate) use stop::remove_pod;
pub(crate) use stop::stop_pod;
pub(crate) use stop::tear_down;
pub(crate) use update::finish_update;
pub(crate) use update::update_resources;
pub(crate) use watch::spawn as watch;

use crate::store::{Lasting, Store, StoreError};

/// A pod in memory. What it says was committed to the database first.
#[derive(Debug)]
pub(crate) struct Pod {
    record: RwLock<Arc<PodRecord>>,
    /// Held by whoever changes the pod, or makes, starts or removes one of its containers.
    pub(crate) lock: Mutex<()>,
    changed: channel::Sender<PodPhase>,
    /// What the reconciler is up to.
    notes: Notes,
}

/// What is known of a pod until the daemon ends, and found out anew by the next one.
#[derive(Debug, Default)]
struct Notes {
    has_turn: AtomicBool,
    edits: RwLock<Vec<Edit>>,
    trouble: std::sync::Mutex<Option<String>>,
}

impl Pod {
    pub(crate) fn new(record: PodRecord) -> Arc<Self> {
        let (changed, _) = channel::channel(record.phase);
        Arc::new(Self {
            record: RwLock::new(Arc::new(record)),
            lock: Mutex::new(()),
            changed,
            notes: Notes::default(),
        })
    }

    pub(crate) fn id(&self) -> String {
        self.record().id.clone()
    }

    /// The record as of now.
    pub(crate) fn record(&self) -> Arc<PodRecord> {
        Arc::clone(&self.record.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes a changed record to the database, then shows it.
    pub(crate) async fn commit(
        &self,
        store: &Store,
        lasting: Lasting,
        change: impl FnOnce(&mut PodRecord),
    ) -> Result<(), StoreError> {
        let mut record = PodRecord::clone(&self.record());
        change(&mut record);
        store.put_pod(&record, lasting).await?;
        let phase = record.phase;
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(record);
        self.changed.send_replace(phase);
        Ok(())
    }

    /// Takes the reconciler's one turn with this pod; false if it is taken.
    pub(crate) fn begin_turn(&self) -> bool {
        !self.notes.has_turn.swap(true, Ordering::AcqRel)
    }

    /// Gives it back.
    pub(crate) fn end_turn(&self) {
        self.notes.has_turn.store(false, Ordering::Release);
    }

    /// What an administrator has changed in the configuration of its container.
    pub(crate) fn edits(&self) -> Vec<Edit> {
        let edits = self.notes.edits.read();
        edits.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of them; logs those that are new.
    pub(crate) fn note_edits(&self, edits: Vec<Edit>) {
        let mut known = self
            .notes
            .edits
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let record = self.record();
        let container = record.running.as_ref().and_then(|r| r.container.as_deref());
        for Edit { key, ours, theirs } in edits.iter().filter(|edit| !known.contains(edit)) {
            tracing::warn!(
                pod = record.id,
                container,
                key,
                ours,
                theirs,
                "somebody else changed the configuration of the pod's container; it is left as it is"
            );
        }
        if edits.is_empty() && !known.is_empty() {
            tracing::info!(
                pod = record.id,
                container,
                "the configuration of the pod's container is as it was made again"
            );
        }
        *known = edits;
    }

    /// Takes note of what keeps the reconciler from its work, or that nothing does; whether that is new.
    pub(crate) fn note_trouble(&self, trouble: Option<String>) -> bool {
        let mut known = self
            .notes
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_new = *known != trouble;
        *known = trouble;
        is_new
    }

    /// Tells of every phase from now on.
    pub(crate) fn phases(&self) -> channel::Receiver<PodPhase> {
        self.changed.subscribe()
    }
}
