//! The database of pods and containers: `<root>/state.db`.
//!
//! What a call made is on disk when it is answered. The steps on the way survive the daemon, but may be lost in a power
//! cut ([`Lasting`]): what they tell of, processes, mounts and namespaces, does not survive that either, and what is on a
//! disk is found by its name and swept. So may be what a call took away: the record of what is gone is then there again, as one
//! that has ended, and is removed a second time.
//!
//! Records are kept whole, as JSON, beside the few columns that SQLite itself must
//! keep unique or follow. The inventory in memory answers every question; this file is only ever written, and read
//! once at start.

use camino::Utf8Path;
use nexcage_sqlite::{Database, DatabaseError, rusqlite};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::containers::ContainerRecord;
use crate::pods::PodRecord;

const SCHEMA: &[&str] = &["
    CREATE TABLE pods (
        id      TEXT PRIMARY KEY,
        key     TEXT NOT NULL UNIQUE, -- namespace/name/uid/attempt
        record  TEXT NOT NULL         -- JSON
    ) STRICT;
    CREATE TABLE containers (
        id      TEXT PRIMARY KEY,
        pod_id  TEXT NOT NULL REFERENCES pods (id),
        key     TEXT NOT NULL,        -- name/attempt
        record  TEXT NOT NULL,        -- JSON
        UNIQUE (pod_id, key)
    ) STRICT;
"];

/// What a change must survive once it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// The end of the daemon; a power cut after half a second, or together with a later change of [`Disk`](Self::Disk). Takes
    /// no time.
    Process,
    /// A power cut.
    Disk,
}

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    db: Database,
}

/// A change of the database failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// SQLite failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A record is not JSON of this version.
    #[error("a record in the database cannot be read or written")]
    Record(#[from] serde_json::Error),
}

impl From<StoreError> for crate::error::OpError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Database(e) => e.into(),
            e @ StoreError::Record(_) => Self::failed("cannot save state", e),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Store {
    /// Opens or creates the file. Blocking.
    pub(crate) fn open(path: &Utf8Path) -> Result<Self, DatabaseError> {
        Ok(Self {
            db: Database::open(path, SCHEMA)?,
        })
    }

    /// All pods and containers.
    pub(crate) async fn load(&self) -> Result<(Vec<PodRecord>, Vec<ContainerRecord>), StoreError> {
        self.db
            .read(|conn| Ok((records(conn, "pods")?, records(conn, "containers")?)))
            .await
    }

    /// Writes down a new pod, which takes room that a full disk does not have.
    pub(crate) async fn add_pod(&self, pod: &PodRecord) -> Result<(), StoreError> {
        let row = Row::of_pod(pod)?;
        self.db.write_early(move |tx| row.put(tx)).await
    }

    /// Writes a pod that has changed.
    pub(crate) async fn put_pod(
        &self,
        pod: &PodRecord,
        lasting: Lasting,
    ) -> Result<(), StoreError> {
        let row = Row::of_pod(pod)?;
        self.amend(lasting, move |tx| row.put(tx)).await
    }

    /// Forgets a pod. Its containers must be gone.
    pub(crate) async fn delete_pod(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.amend(Lasting::Process, move |tx| {
            tx.prepare_cached("DELETE FROM pods WHERE id = ?1")?
                .execute([&id])?;
            Ok(())
        })
        .await
    }

    /// Writes down a new container, which takes room that a full disk does not have.
    pub(crate) async fn add_container(&self, c: &ContainerRecord) -> Result<(), StoreError> {
        let row = Row::of_container(c)?;
        self.db.write_early(move |tx| row.put(tx)).await
    }

    /// Writes a container that has changed.
    pub(crate) async fn put_container(
        &self,
        c: &ContainerRecord,
        lasting: Lasting,
    ) -> Result<(), StoreError> {
        let row = Row::of_container(c)?;
        self.amend(lasting, move |tx| row.put(tx)).await
    }

    /// Forgets a container.
    pub(crate) async fn delete_container(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.amend(Lasting::Process, move |tx| {
            tx.prepare_cached("DELETE FROM containers WHERE id = ?1")?
                .execute([&id])?;
            Ok(())
        })
        .await
    }

    /// Changes what is there, on a full disk, too.
    async fn amend(
        &self,
        lasting: Lasting,
        work: impl FnMut(&rusqlite::Transaction<'_>) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        match lasting {
            Lasting::Process => self.db.amend_early(work).await,
            Lasting::Disk => self.db.amend(work).await,
        }
    }

    /// Proves that the database can be written; a full disk [is told apart](crate::error::is_out_of_space).
    pub(crate) async fn check(&self) -> Result<(), DatabaseError> {
        self.db.check().await
    }
}

/// What is written of a pod or container.
struct Row {
    id: String,
    /// Of a container: its pod.
    pod: Option<String>,
    key: String,
    record: String,
}

impl Row {
    fn of_pod(pod: &PodRecord) -> Result<Self, StoreError> {
        Ok(Self {
            id: pod.id.clone(),
            pod: None,
            key: pod.spec.key(),
            record: serde_json::to_string(pod)?,
        })
    }

    fn of_container(c: &ContainerRecord) -> Result<Self, StoreError> {
        Ok(Self {
            id: c.id.clone(),
            pod: Some(c.pod_id.clone()),
            key: c.spec.key(),
            record: serde_json::to_string(c)?,
        })
    }

    /// Puts it in the place of the one with its id, if there is one.
    fn put(&self, tx: &rusqlite::Transaction<'_>) -> Result<(), StoreError> {
        let Self {
            id,
            pod,
            key,
            record,
        } = self;
        match pod {
            None => tx
                .prepare_cached(
                    "INSERT INTO pods (id, key, record) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                )?
                .execute((id, key, record))?,
            Some(pod) => tx
                .prepare_cached(
                    "INSERT INTO containers (id, pod_id, key, record) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                )?
                .execute((id, pod, key, record))?,
        };
        Ok(())
    }
}

fn records<T: Serialize + DeserializeOwned>(
    conn: &rusqlite::Connection,
    table: &str,
) -> Result<Vec<T>, StoreError> {
    let mut query = conn.prepare(&format!("SELECT record FROM {table}"))?;
    let rows = query.query_map([], |row| row.get::<_, String>(0))?;
    rows.map(|row| Ok(serde_json::from_str(&row?)?)).collect()
}
