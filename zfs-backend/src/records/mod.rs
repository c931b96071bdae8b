//! The records: which layer is which snapshot, which root filesystem stands on which, and what is unfinished.

mod images;
mod rootfses;

use camino::Utf8Path;
use nexcage_image_store::{ChainId, Digest};
use nexcage_sqlite::{Database, DatabaseError};
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row};

pub(crate) use images::{Begun, Image, Layer, Measured, Target};
pub(crate) use rootfses::Rootfs;

use crate::error::Result;

/// A layer is live while it is `complete`; of those there is one per chain. One that is `removing` may
/// still be on the disk, whole or in part, because something stands on it.
///
/// Layers are tied to each other and to root filesystems by chain ids, not by rows: a snapshot holds
/// everything below it too, so it stays good if a snapshot below it is lost.
const SCHEMA: &[&str] = &["
CREATE TABLE store (
    -- the value of nexcage:store
    id TEXT NOT NULL
) STRICT;
CREATE TABLE dataset (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    -- it is in deleted/, not in images/
    deleted INTEGER NOT NULL DEFAULT 0,
    -- it may differ from its latest snapshot
    dirty INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE TABLE layer (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chain TEXT NOT NULL,
    parent TEXT,
    dataset INTEGER NOT NULL REFERENCES dataset (n),
    state TEXT NOT NULL CHECK (state IN ('applying', 'complete', 'removing')),
    -- of this layer alone
    bytes INTEGER NOT NULL DEFAULT 0,
    inodes INTEGER NOT NULL DEFAULT 0,
    -- of it and all below it; 0 if it was never complete
    total_bytes INTEGER NOT NULL DEFAULT 0,
    total_inodes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX layer_live ON layer (chain) WHERE state = 'complete';
CREATE INDEX layer_parent ON layer (parent);
CREATE INDEX layer_dataset ON layer (dataset);
CREATE TABLE rootfs (
    id TEXT PRIMARY KEY,
    top TEXT NOT NULL,
    writable INTEGER NOT NULL,
    -- inodes below the writable layer
    base_inodes INTEGER NOT NULL,
    -- properties of the dataset, as JSON
    properties TEXT NOT NULL,
    -- the generation that is the root filesystem; others only hold checkpoints
    current INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX rootfs_top ON rootfs (top);
CREATE TABLE generation (
    rootfs TEXT NOT NULL REFERENCES rootfs (id) ON DELETE CASCADE,
    n INTEGER NOT NULL,
    PRIMARY KEY (rootfs, n)
) STRICT;
"];

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    db: Database,
}

fn sql(e: rusqlite::Error) -> nexcage_image_store::LayerStoreError {
    DatabaseError::Statement(e).into()
}

impl Records {
    /// Opens the file.
    pub(crate) fn open(path: &Utf8Path) -> Result<Self> {
        Ok(Self {
            db: Database::open(path, SCHEMA)?,
        })
    }

    /// The store's id, made when the file was.
    pub(crate) async fn store_id(&self) -> Result<String> {
        let new = format!("{:032x}", rand::random::<u128>());
        self.amend(move |tx| {
            let known = tx.query_row("SELECT id FROM store", [], |r| r.get(0));
            if let Some(id) = known.optional()? {
                return Ok(id);
            }
            tx.execute("INSERT INTO store (id) VALUES (?1)", [&new])?;
            Ok(new.clone())
        })
        .await
    }

    /// Proves that the file can be read.
    pub(crate) async fn check(&self) -> Result<()> {
        self.read(|c| c.query_row("SELECT 1", [], |_| Ok(()))).await
    }

    /// For all but the beginning of something new.
    async fn amend<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db.amend(move |tx| work(tx).map_err(sql)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db.read(move |c| work(c).map_err(sql)).await
    }
}

fn chain(row: &Row<'_>, column: usize) -> rusqlite::Result<ChainId> {
    let text: String = row.get(column)?;
    parse_chain(column, &text)
}

fn chain_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<ChainId>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| parse_chain(column, &text)).transpose()
}

fn parse_chain(column: usize, text: &str) -> rusqlite::Result<ChainId> {
    (text.parse::<Digest>())
        .map(ChainId::from)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

/// SQLite has no unsigned integers; no disk has 2^63 bytes.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let n: i64 = row.get(column)?;
    u64::try_from(n).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, n))
}
