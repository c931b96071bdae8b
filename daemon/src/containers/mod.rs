//! Containers: one file per transition.
//!
//! `create`, `start`, `stop` and `remove` are the calls; `watch` notices the end, whoever caused it; `exec`,
//! `update` and `checkpoint` act on a running one. `config` says what a container shall be, `spec` turns that into
//! an OCI runtime specification, with the help of `users` and `seccomp`. `rootfs` makes
//! and mounts what it runs on, `user_namespace` sees to pods that have one of their own. `record` says which phase
//! allows what.

mod checkpoint;
pub(crate) mod config;
mod create;
mod devices;
mod exec;
mod facts;
mod record;
mod remove;
mod rootfs;
pub(crate) mod seccomp;
pub(crate) mod signal;
mod spec;
mod start;
mod stop;
mod update;
mod user_namespace;
mod users;
mod volumes;
mod watch;

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Mutex, watch as channel};

pub(crate) use checkpoint::checkpoint;
pub(crate) use checkpoint::checkpoints;
pub(crate) use checkpoint::finish_restoring;
pub(crate) use checkpoint::remove_checkpoint;
pub(crate) use checkpoint::restore;
pub(crate) use create::create_container;
pub(crate) use exec::exec_sync;
pub(crate) use facts::node_facts;
pub(crate) use facts::raise_file_limit;
pub(crate) use record::ContainerPhase;
pub(crate) use record::ContainerRecord;
#[cfg(test)]
pub(crate) use record::ProcessId;
#[cfg(test)]
pub(crate) use record::RunsAs;
pub(crate) use remove::remove_container;
pub(crate) use remove::remove_everything;
pub(crate) use rootfs::properties as rootfs_properties;
pub(crate) use spec::NodeFacts;
pub(crate) use spec::capability;
pub(crate) use start::start_container;
pub(crate) use stop::kill_all;
pub(crate) use stop::stop_container;
pub(crate) use update::reopen_log;
pub(crate) use update::update_resources;
pub(crate) use watch::find_out;
pub(crate) use watch::spawn as watch;

use crate::store::{Lasting, Store, StoreError};

/// A container in memory. What it says was committed to the database first.
#[derive(Debug)]
pub(crate) struct Container {
    record: RwLock<Arc<ContainerRecord>>,
    /// Held while a record is changed and written: the watcher does so without the pod's lock.
    committing: Mutex<()>,
    changed: channel::Sender<ContainerPhase>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord) -> Arc<Self> {
        let (changed, _) = channel::channel(record.phase);
        Arc::new(Self {
            record: RwLock::new(Arc::new(record)),
            committing: Mutex::new(()),
            changed,
        })
    }

    pub(crate) fn id(&self) -> String {
        self.record().id.clone()
    }

    pub(crate) fn pod_id(&self) -> String {
        self.record().pod_id.clone()
    }

    /// The record as of now.
    pub(crate) fn record(&self) -> Arc<ContainerRecord> {
        Arc::clone(&self.record.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes a changed record to the database, then shows it. `change` says whether there is
    /// anything to change: it sees the record as it is when its turn comes.
    pub(crate) async fn commit(
        &self,
        store: &Store,
        lasting: Lasting,
        change: impl FnOnce(&mut ContainerRecord) -> bool,
    ) -> Result<bool, StoreError> {
        let _turn = self.committing.lock().await;
        let mut record = ContainerRecord::clone(&self.record());
        if !change(&mut record) {
            return Ok(false);
        }
        store.put_container(&record, lasting).await?;
        let phase = record.phase;
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(record);
        self.changed.send_replace(phase);
        Ok(true)
    }

    /// Tells of every phase from now on.
    pub(crate) fn phases(&self) -> channel::Receiver<ContainerPhase> {
        self.changed.subscribe()
    }
}
