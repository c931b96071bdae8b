//! The handle, and the thread behind it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::afterwards::Afterwards;
use crate::migrate::migrate;
use crate::room;

/// Requests waiting for the writer. A request is a few hundred bytes and takes well
/// under 10 ms, so a full queue means a second of work ahead; further callers wait in
/// `send` without holding anything.
const QUEUE: usize = 128;

/// How long a page that got to the disk proves that others do. Whoever checks does so every few seconds, and on an idle node
/// this is all that is written.
const FRESH: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A database file, opened. Cheap to clone; all clones share the one writer.
#[derive(Clone, Debug)]
pub struct Database {
    jobs: mpsc::Sender<Job>,
    afterwards: Afterwards,
    /// When [`check`](Self::check) last got a page to the disk.
    proven: Arc<Mutex<Option<Instant>>>,
}

/// Why a database could not be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The file cannot be opened or is not a database.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: String,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The thread that owns the connection could not be started.
    #[error("cannot start the database thread")]
    Thread(#[source] std::io::Error),
    /// A newer nexcage wrote this file.
    #[error("the database has schema version {found}, this nexcage knows versions up to {known}")]
    TooNew {
        /// `user_version` of the file.
        found: i64,
        /// The newest version this build knows.
        known: i64,
    },
    /// A migration failed; the file is as it was before it.
    #[error("cannot bring the database to the current schema")]
    Migrate(#[source] rusqlite::Error),
    /// A statement failed; nothing of its transaction was kept.
    #[error("database statement failed")]
    Statement(#[from] rusqlite::Error),
    /// The database thread is gone (a closure panicked, or the process is ending).
    #[error("the database thread has ended")]
    Closed,
}

impl DatabaseError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            // A full disk may get room again, a locked file may be let go.
            Self::Statement(rusqlite::Error::SqliteFailure(e, _)) => matches!(
                e.code,
                rusqlite::ErrorCode::DiskFull
                    | rusqlite::ErrorCode::DatabaseBusy
                    | rusqlite::ErrorCode::DatabaseLocked
                    | rusqlite::ErrorCode::SystemIoFailure
            ),
            _ => false,
        }
    }
}

impl Database {
    /// Opens or creates `path` and brings it to the schema of `scripts` (see the crate's
    /// documentation). Blocking: call it at start, before there is anything to hold up.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::Open`], [`DatabaseError::TooNew`], [`DatabaseError::Migrate`], [`DatabaseError::Thread`].
    pub fn open(path: &Utf8Path, scripts: &[&str]) -> Result<Self, DatabaseError> {
        let open = |source| DatabaseError::Open {
            path: path.to_string(),
            source,
        };
        let mut conn = Connection::open(path).map_err(open)?;
        conn.busy_timeout(Duration::from_secs(5)).map_err(open)?;
        conn.pragma_update(None, "journal_mode", "WAL")
            .map_err(open)?;
        conn.pragma_update(None, "synchronous", "FULL")
            .map_err(open)?;
        conn.pragma_update(None, "foreign_keys", "ON")
            .map_err(open)?;
        migrate(&mut conn, scripts)?;

        let afterwards = Afterwards::start(path).map_err(DatabaseError::Thread)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new()
            .name("sqlite".into())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut conn);
                }
            })
            .map_err(DatabaseError::Thread)?;
        Ok(Self {
            jobs,
            afterwards,
            proven: Arc::default(),
        })
    }

    /// Runs `work` in one immediate transaction and commits it if it succeeds. When this
    /// returns `Ok`, the change is on disk.
    ///
    /// Not cancelled by dropping the future: work that was queued is done.
    ///
    /// # Errors
    ///
    /// What `work` returned (then nothing was changed), or [`DatabaseError::Statement`],
    /// [`DatabaseError::Closed`].
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.transact("FULL", work).await
    }

    /// As [`write`](Self::write), but does not wait for the disk: the change survives the end of this process at once, and a
    /// power cut from the end of the next `write` on, or after half a second. A power cut never keeps a later change without an
    /// earlier one.
    ///
    /// For a step on the way to a `write`, for what is worth nothing after a power cut, and for what is done again then.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn write_early<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        // In WAL mode this leaves out the fsync of each commit, and no other (sqlite.org/pragma.html#pragma_synchronous).
        let written = self.transact("NORMAL", work).await;
        self.afterwards.sync_soon();
        written
    }

    async fn transact<T, E, F>(&self, synchronous: &'static str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.run(move |conn| {
            let done = attempt(conn, synchronous, work);
            done.unwrap_or_else(|e| Err(DatabaseError::Statement(e).into()))
        })
        .await
    }

    /// Proves that the file can be written. A page is written over itself and brought to the disk, since neither a lock nor a
    /// statement that changes no row is noticed by a disk that has become read-only. For the next 30 seconds it is enough
    /// that the thread answers and nobody else holds the lock.
    ///
    /// A full disk is [`rusqlite::ErrorCode::DiskFull`], whatever the kernel calls it.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::Statement`], [`DatabaseError::Closed`].
    pub async fn check(&self) -> Result<(), DatabaseError> {
        let last = *self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|when| when.elapsed() < FRESH) {
            return self.write(|_| Ok(())).await;
        }
        self.write(touch).await?;
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        *proven = Some(Instant::now());
        Ok(())
    }

    /// Runs `work` on the connection without a transaction of its own; for queries.
    ///
    /// # Errors
    ///
    /// What `work` returned, or [`DatabaseError::Closed`].
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        self.run(move |conn| work(conn)).await
    }

    async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            // The caller may be gone; the work is done all the same.
            let _ = answer.send(work(conn));
        });
        self.jobs
            .send(job)
            .await
            .map_err(|_| DatabaseError::Closed)?;
        answered.await.map_err(|_| DatabaseError::Closed)?
    }
}

/// Runs `work` in one transaction. The outer error is that of the transaction itself, the inner one that of `work`; with
/// either nothing was changed.
fn attempt<T, E>(
    conn: &mut Connection,
    synchronous: &str,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> rusqlite::Result<Result<T, E>> {
    let done = transaction(conn, synchronous, work);
    done.map_err(|error| room::explained(conn, error))
}

fn transaction<T, E>(
    conn: &mut Connection,
    synchronous: &str,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> rusqlite::Result<Result<T, E>> {
    conn.pragma_update(None, "synchronous", synchronous)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match work(&tx) {
        Ok(out) => tx.commit().map(|()| Ok(out)),
        Err(error) => Ok(Err(error)),
    }
}

/// Writes the file's first page as it is: for SQLite a pragma that sets what is there already is a change.
fn touch(tx: &Transaction<'_>) -> Result<(), DatabaseError> {
    let version: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(tx.pragma_update(None, "user_version", version)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &[&str] = &["CREATE TABLE t (a INTEGER NOT NULL)"];

    fn file() -> (tempfile::TempDir, camino::Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = camino::Utf8PathBuf::try_from(dir.path().join("x.db")).unwrap();
        (dir, path)
    }

    async fn count(db: &Database) -> i64 {
        db.read(|c| {
            Ok::<_, DatabaseError>(c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn a_write_is_there_after_reopening() {
        let (_dir, path) = file();
        let db = Database::open(&path, SCHEMA).unwrap();
        db.write(|tx| Ok::<_, DatabaseError>(tx.execute("INSERT INTO t VALUES (1)", [])?))
            .await
            .unwrap();
        drop(db);
        let db = Database::open(&path, SCHEMA).unwrap();
        assert_eq!(count(&db).await, 1);
    }

    #[tokio::test]
    async fn only_a_write_waits_for_the_disk() {
        let (_dir, path) = file();
        let db = Database::open(&path, SCHEMA).unwrap();
        let synchronous = |tx: &Transaction<'_>| {
            tx.execute("INSERT INTO t VALUES (1)", [])?;
            Ok::<i64, DatabaseError>(tx.query_row("PRAGMA synchronous", [], |row| row.get(0))?)
        };
        assert_eq!(db.write_early(synchronous).await.unwrap(), 1);
        assert_eq!(db.write(synchronous).await.unwrap(), 2);
        assert_eq!(db.write_early(synchronous).await.unwrap(), 1);
        assert_eq!(count(&db).await, 3);
    }

    #[tokio::test]
    async fn a_failed_write_leaves_nothing() {
        let (_dir, path) = file();
        let db = Database::open(&path, SCHEMA).unwrap();
        let r: Result<(), DatabaseError> = db
            .write(|tx| {
                tx.execute("INSERT INTO t VALUES (1)", [])?;
                tx.execute("INSERT INTO nowhere VALUES (1)", [])?;
                Ok(())
            })
            .await;
        assert!(matches!(r, Err(DatabaseError::Statement(_))));
        assert_eq!(count(&db).await, 0);
    }

    #[tokio::test]
    async fn a_check_writes_a_page_now_and_then() {
        let (_dir, path) = file();
        let db = Database::open(&path, SCHEMA).unwrap();
        let log = || std::fs::metadata(format!("{path}-wal")).unwrap().len();
        let before = log();
        db.check().await.unwrap();
        // A frame of SQLite's log: a page and its header.
        assert_eq!(log(), before + 4096 + 24);
        db.check().await.unwrap();
        assert_eq!(log(), before + 4096 + 24);
        *db.proven.lock().unwrap() = None;
        db.check().await.unwrap();
        assert_eq!(log(), before + 2 * (4096 + 24));
        drop(db);
        drop(Database::open(&path, SCHEMA).unwrap());
    }

    #[tokio::test]
    async fn a_check_fails_while_somebody_else_holds_the_lock() {
        let (_dir, path) = file();
        let db = Database::open(&path, SCHEMA).unwrap();
        db.check().await.unwrap();
        let mut other = Connection::open(&path).unwrap();
        let held = other
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        let busy = db.check().await.unwrap_err();
        assert!(busy.is_retryable(), "{busy:?}");
        drop(held);
        db.check().await.unwrap();
    }

    #[tokio::test]
    async fn an_old_file_is_brought_forward_and_a_newer_one_refused() {
        let (_dir, path) = file();
        drop(Database::open(&path, SCHEMA).unwrap());
        let two = &[SCHEMA[0], "ALTER TABLE t ADD COLUMN b TEXT"];
        drop(Database::open(&path, two).unwrap());
        assert!(matches!(
            Database::open(&path, SCHEMA),
            Err(DatabaseError::TooNew { found: 2, known: 1 })
        ));
    }

    #[tokio::test]
    async fn garbage_is_not_a_database() {
        let (_dir, path) = file();
        std::fs::write(&path, vec![7u8; 8192]).unwrap();
        assert!(matches!(
            Database::open(&path, SCHEMA),
            Err(DatabaseError::Open { .. })
        ));
    }
}
