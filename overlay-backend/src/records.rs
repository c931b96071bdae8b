//! The records: layers, root filesystems, and what is unfinished.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use camino::Utf8Path;
use nexcage_image_store::{ChainId, LayerStoreError, RootfsId, StoredLayer, Usage};
use nexcage_sqlite::Database;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A layer is live while it is `written` or `complete`; of those there is one per chain. The
/// other states are those of work that has begun: only their directories matter.
const SCHEMA: &[&str] = &["
CREATE TABLE layer (
    dir INTEGER PRIMARY KEY AUTOINCREMENT,
    chain TEXT NOT NULL,
    parent INTEGER REFERENCES layer (dir),
    state TEXT NOT NULL CHECK (state IN ('applying', 'written', 'complete', 'removing')),
    -- /proc/sys/kernel/random/boot_id of when it was written
    boot TEXT NOT NULL,
    bytes INTEGER NOT NULL DEFAULT 0,
    inodes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX layer_live ON layer (chain) WHERE state IN ('written', 'complete');
CREATE INDEX layer_parent ON layer (parent);
CREATE TABLE rootfs (
    id TEXT PRIMARY KEY,
    top INTEGER NOT NULL REFERENCES layer (dir),
    writable INTEGER NOT NULL
) STRICT;
CREATE INDEX rootfs_top ON rootfs (top);
"];

const LIVE: &str = "state IN ('written', 'complete')";

/// The number that names a layer's directory.
pub(crate) type LayerDir = i64;

/// What to do for a layer that is asked for.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Nothing.
    Exists(StoredLayer),
    /// Unpack it into this directory; those below it, uppermost first.
    Apply(LayerDir, Vec<LayerDir>),
}

/// What a root filesystem stands on.
#[derive(Clone, Debug)]
pub(crate) struct RootfsRecord {
    /// Directories of its layers, uppermost first.
    pub(crate) layers: Vec<LayerDir>,
    /// Whether it has a writable layer.
    pub(crate) writable: bool,
}

/// What is left after unfinished work has been struck off.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) layers: Vec<LayerDir>,
    pub(crate) rootfses: Vec<RootfsId>,
    /// Layers that were not yet on the disk when the machine went down.
    pub(crate) lost: i64,
}

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    db: Database,
    boot: Arc<str>,
}

type Result<T> = std::result::Result<T, LayerStoreError>;

fn sql(e: rusqlite::Error) -> LayerStoreError {
    nexcage_sqlite::DatabaseError::Statement(e).into()
}

impl Records {
    /// Opens the file. `boot` is what tells this run of the machine from others.
    pub(crate) fn open(path: &Utf8Path, boot: &str) -> Result<Self> {
        Ok(Self {
            db: Database::open(path, SCHEMA)?,
            boot: boot.into(),
        })
    }

    /// Strikes off what was not finished, or not on the disk when the machine went down.
    pub(crate) async fn strike_unfinished(&self) -> Result<Kept> {
        let boot = self.boot.clone();
        let work = move |tx: &rusqlite::Transaction<'_>| {
            let lost = format!("state = 'written' AND boot <> '{boot}'");
            let gone = format!("state IN ('applying', 'removing') OR ({lost})");
            // Parents are checked at the end: a layer may go before one that stands on it.
            tx.pragma_update(None, "defer_foreign_keys", "ON")?;
            tx.execute(
                &format!("DELETE FROM rootfs WHERE top IN (SELECT dir FROM layer WHERE {gone})"),
                [],
            )?;
            let count = format!("SELECT count(*) FROM layer WHERE {lost}");
            let lost: i64 = tx.query_row(&count, [], |r| r.get(0))?;
            tx.execute(&format!("DELETE FROM layer WHERE {gone}"), [])?;
            Ok(Kept {
                lost,
                layers: tx
                    .prepare("SELECT dir FROM layer")?
                    .query_map([], |r| r.get(0))?
                    .collect::<rusqlite::Result<_>>()?,
                rootfses: ids(tx, "SELECT id FROM rootfs")?,
            })
        };
        self.db.amend(move |tx| work(tx).map_err(sql)).await
    }

    /// Proves that the file can be read.
    pub(crate) async fn check(&self) -> Result<()> {
        (self.db)
            .read(|c| c.query_row("SELECT 1", [], |_| Ok(())).map_err(sql))
            .await
    }

    pub(crate) async fn layer(&self, chain: &ChainId) -> Result<Option<StoredLayer>> {
        let chain = chain.clone();
        self.db.read(move |c| live(c, &chain).map_err(sql)).await
    }

    pub(crate) async fn layers(&self) -> Result<Vec<StoredLayer>> {
        self.db
            .read(|c| {
                let all = format!("{STORED} WHERE l.{LIVE}");
                let mut statement = c.prepare(&all).map_err(sql)?;
                let rows = statement.query_map([], stored).map_err(sql)?;
                rows.collect::<rusqlite::Result<_>>().map_err(sql)
            })
            .await
    }

    pub(crate) async fn layers_usage(&self) -> Result<Usage> {
        let sum = format!(
            "SELECT coalesce(sum(bytes), 0), coalesce(sum(inodes), 0) FROM layer WHERE {LIVE}"
        );
        let usage = |r: &Row<'_>| {
            Ok(Usage {
                bytes: unsigned(r, 0)?,
                inodes: unsigned(r, 1)?,
            })
        };
        (self.db)
            .read(move |c| c.query_row(&sum, [], usage).map_err(sql))
            .await
    }

    /// Writes down that `chain` is going to be unpacked on `parent`.
    pub(crate) async fn begin_layer(
        &self,
        parent: Option<&ChainId>,
        chain: &ChainId,
    ) -> Result<Begun> {
        let (parent, chain, boot) = (parent.cloned(), chain.clone(), self.boot.clone());
        self.db
            .write(move |tx| {
                if let Some(layer) = live(tx, &chain).map_err(sql)? {
                    return Ok(Begun::Exists(layer));
                }
                let below = match &parent {
                    None => Vec::new(),
                    Some(parent) => stack(tx, parent)?,
                };
                tx.execute(
                    "INSERT INTO layer (chain, parent, state, boot) VALUES (?1, ?2, 'applying', ?3)",
                    params![chain.to_string(), below.first(), boot],
                )
                .map_err(sql)?;
                Ok(Begun::Apply(tx.last_insert_rowid(), below))
            })
            .await
    }

    /// Writes down that the layer in `dir` is there in full. If another call was quicker, `false`:
    /// then this one is struck off.
    pub(crate) async fn layer_written(&self, dir: LayerDir, usage: Usage) -> Result<bool> {
        self.db
            .amend(move |tx| {
                let done = tx.execute(
                    "UPDATE OR IGNORE layer SET state = 'written', bytes = ?2, inodes = ?3
                     WHERE dir = ?1",
                    params![dir, signed(usage.bytes), signed(usage.inodes)],
                );
                Ok(done.map_err(sql)? > 0)
            })
            .await
    }

    /// Layers that are written, but perhaps not on the disk.
    pub(crate) async fn unflushed(&self) -> Result<Vec<LayerDir>> {
        self.db
            .read(|c| {
                let mut statement = c
                    .prepare("SELECT dir FROM layer WHERE state = 'written'")
                    .map_err(sql)?;
                let rows = statement.query_map([], |r| r.get(0)).map_err(sql)?;
                rows.collect::<rusqlite::Result<_>>().map_err(sql)
            })
            .await
    }

    /// These layers are on the disk.
    pub(crate) async fn flushed(&self, dirs: Vec<LayerDir>) -> Result<()> {
        self.db
            .amend(move |tx| {
                for dir in &dirs {
                    tx.execute(
                        "UPDATE layer SET state = 'complete' WHERE dir = ?1 AND state = 'written'",
                        [dir],
                    )
                    .map_err(sql)?;
                }
                Ok(())
            })
            .await
    }

    /// Writes down that `chain` is going to be removed: from now on nothing can be put on it. Its
    /// directories, including those of removals that failed.
    pub(crate) async fn begin_removal(&self, chain: &ChainId) -> Result<Vec<LayerDir>> {
        let chain = chain.clone();
        self.db
            .amend(move |tx| {
                let name = chain.to_string();
                let used: bool = tx
                    .query_row(
                        &format!(
                            "SELECT EXISTS (SELECT 1 FROM layer l WHERE l.chain = ?1 AND l.{LIVE} AND (
                                 EXISTS (SELECT 1 FROM layer c WHERE c.parent = l.dir)
                                 OR EXISTS (SELECT 1 FROM rootfs r WHERE r.top = l.dir)))"
                        ),
                        [&name],
                        |r| r.get(0),
                    )
                    .map_err(sql)?;
                if used {
                    let chain = chain.clone();
                    return Err(LayerStoreError::InUse { chain });
                }
                let doomed = "UPDATE layer SET state = 'removing'
                              WHERE chain = ?1 AND state <> 'applying' RETURNING dir";
                let mut statement = tx.prepare(doomed).map_err(sql)?;
                let rows = statement.query_map([&name], |r| r.get(0)).map_err(sql)?;
                rows.collect::<rusqlite::Result<_>>().map_err(sql)
            })
            .await
    }

    /// The directory `dir` is gone.
    pub(crate) async fn forget_layer(&self, dir: LayerDir) -> Result<()> {
        self.db
            .amend(move |tx| {
                tx.execute("DELETE FROM layer WHERE dir = ?1", [dir])
                    .map_err(sql)?;
                Ok(())
            })
            .await
    }

    /// Writes down that `id` stands on `top`. `false` if it stands on something else already.
    pub(crate) async fn begin_rootfs(
        &self,
        id: &RootfsId,
        top: &ChainId,
        writable: bool,
    ) -> Result<bool> {
        let (id, top) = (id.clone(), top.clone());
        self.db
            .write_early(move |tx| {
                let top = *stack(tx, &top)?.first().ok_or_else(|| no_layer(&top))?;
                let before: Option<(LayerDir, bool)> = tx
                    .query_row(
                        "SELECT top, writable FROM rootfs WHERE id = ?1",
                        [&id.0],
                        |r| Ok((r.get(0)?, r.get(1)?)),
                    )
                    .optional()
                    .map_err(sql)?;
                if let Some(before) = before {
                    return Ok(before == (top, writable));
                }
                tx.execute(
                    "INSERT INTO rootfs (id, top, writable) VALUES (?1, ?2, ?3)",
                    params![id.0, top, writable],
                )
                .map_err(sql)?;
                Ok(true)
            })
            .await
    }

    pub(crate) async fn rootfs(&self, id: &RootfsId) -> Result<Option<RootfsRecord>> {
        let id = id.clone();
        self.db
            .read(move |c| {
                let found: Option<(LayerDir, bool)> = c
                    .query_row(
                        "SELECT top, writable FROM rootfs WHERE id = ?1",
                        [&id.0],
                        |r| Ok((r.get(0)?, r.get(1)?)),
                    )
                    .optional()
                    .map_err(sql)?;
                let Some((top, writable)) = found else {
                    return Ok(None);
                };
                Ok(Some(RootfsRecord {
                    layers: stack_of(c, "dir = ?1", top).map_err(sql)?,
                    writable,
                }))
            })
            .await
    }

    pub(crate) async fn rootfses(&self) -> Result<Vec<RootfsId>> {
        (self.db)
            .read(|c| ids(c, "SELECT id FROM rootfs").map_err(sql))
            .await
    }

    /// Nothing of `id` is left.
    pub(crate) async fn forget_rootfs(&self, id: &RootfsId) -> Result<()> {
        let id = id.clone();
        self.db
            .amend_early(move |tx| {
                tx.execute("DELETE FROM rootfs WHERE id = ?1", [&id.0])
                    .map_err(sql)?;
                Ok(())
            })
            .await
    }
}

const STORED: &str = "SELECT l.chain, p.chain, l.bytes, l.inodes
                      FROM layer l LEFT JOIN layer p ON p.dir = l.parent";

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredLayer> {
    let chain = |i: usize, text: String| {
        (text.parse::<nexcage_image_store::Digest>())
            .map(ChainId::from)
            .map_err(|e| rusqlite::Error::FromSqlConversionFailure(i, Type::Text, Box::new(e)))
    };
    Ok(StoredLayer {
        chain: chain(0, row.get(0)?)?,
        parent: match row.get(1)? {
            Some(text) => Some(chain(1, text)?),
            None => None,
        },
        bytes: unsigned(row, 2)?,
        inodes: unsigned(row, 3)?,
    })
}

/// SQLite has no unsigned integers; no disk has 2^63 bytes.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let n: i64 = row.get(column)?;
    u64::try_from(n).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, n))
}

fn live(c: &Connection, chain: &ChainId) -> rusqlite::Result<Option<StoredLayer>> {
    c.query_row(
        &format!("{STORED} WHERE l.{LIVE} AND l.chain = ?1"),
        [chain.to_string()],
        stored,
    )
    .optional()
}

/// The directories of a live layer and all below it, uppermost first.
fn stack(c: &Connection, top: &ChainId) -> Result<Vec<LayerDir>> {
    let condition = format!("{LIVE} AND chain = ?1");
    let dirs = stack_of(c, &condition, top.to_string()).map_err(sql)?;
    match dirs.is_empty() {
        true => Err(no_layer(top)),
        false => Ok(dirs),
    }
}

fn stack_of(
    c: &Connection,
    condition: &str,
    value: impl rusqlite::ToSql,
) -> rusqlite::Result<Vec<LayerDir>> {
    c.prepare(&format!(
        "WITH RECURSIVE stack (dir, parent, depth) AS (
             SELECT dir, parent, 0 FROM layer WHERE {condition}
             UNION ALL
             SELECT l.dir, l.parent, s.depth + 1 FROM layer l JOIN stack s ON l.dir = s.parent)
         SELECT dir FROM stack ORDER BY depth"
    ))?
    .query_map([value], |r| r.get(0))?
    .collect()
}

fn ids(c: &Connection, query: &str) -> rusqlite::Result<Vec<RootfsId>> {
    (c.prepare(query)?)
        .query_map([], |r| r.get(0).map(RootfsId))?
        .collect()
}

fn no_layer(chain: &ChainId) -> LayerStoreError {
    LayerStoreError::NotFound {
        what: "layer",
        name: chain.to_string(),
    }
}

/// Waits for an answer of the database on a thread that may block.
///
/// The database is served by a thread of its own, so this needs no runtime; and the blocking tasks that
/// call it must run to their end even if the runtime is going down.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(out) => return out,
            Poll::Pending => std::thread::park(),
        }
    }
}
