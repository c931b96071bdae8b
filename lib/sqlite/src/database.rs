//! The handle, and the thread behind it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rusqlite::{Connection, Transaction};
use tokio::sync::{mpsc, oneshot};

use crate::afterwards::Afterwards;
use crate::writer::{Synchronous, Writer, touch};

/// Requests waiting for the writer. A request is a few hundred bytes and takes well
/// under 10 ms, so a full queue means a second of work ahead; further callers wait in
/// `send` without holding anything.
const QUEUE: usize = 128;

/// How long a page that got to the disk proves that others do. Whoever checks does so every few seconds, and on an idle node
/// this is all that is written.
const FRESH: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

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
    /// There is no room for the reserve, so nothing new is recorded.
    #[error("cannot keep room in {path} for taking things away")]
    Reserve {
        /// The file.
        path: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
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
            Self::Reserve { .. } => true,
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
        let mut writer = Writer::open(path, scripts)?;
        let afterwards = Afterwards::start(path).map_err(DatabaseError::Thread)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new()
            .name("sqlite".into())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut writer);
                }
            })
            .map_err(DatabaseError::Thread)?;
        Ok(Self {
            jobs,
            afterwards,
            proven: Arc::default(),
        })
    }

    /// Records something new: runs `work` in one immediate transaction and commits it if it succeeds. When this
    /// returns `Ok`, the change is on disk.
    ///
    /// Not cancelled by dropping the future: work that was queued is done.
    ///
    /// # Errors
    ///
    /// What `work` returned (then nothing was changed), or [`DatabaseError::Statement`],
    /// [`DatabaseError::Reserve`], [`DatabaseError::Closed`].
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.run(|writer| writer.add(Synchronous::Full, work)).await
    }

    /// As [`write`](Self::write), but does not wait for the disk: the change survives the end of this process at once, and a
    /// power cut from the end of the next change on that waits, or after half a second. A power cut never keeps a later change
    /// without an earlier one.
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
        let written = self.run(|writer| writer.add(Synchronous::Normal, work));
        let written = written.await;
        self.afterwards.sync_soon();
        written
    }

    /// Changes or takes away what is there, on a full disk, too, as long as something is left of the reserve. `work` is then
    /// run once more, in another transaction. Otherwise as [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// What `work` returned (then nothing was changed), or [`DatabaseError::Statement`], [`DatabaseError::Closed`].
    pub async fn amend<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnMut(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.run(|writer| writer.amend(Synchronous::Full, work))
            .await
    }

    /// As [`amend`](Self::amend), but waits for the disk as little as [`write_early`](Self::write_early).
    ///
    /// # Errors
    ///
    /// As [`amend`](Self::amend).
    pub async fn amend_early<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnMut(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let written = self.run(|writer| writer.amend(Synchronous::Normal, work));
        let written = written.await;
        self.afterwards.sync_soon();
        written
    }

    /// Proves that the file can be written. A page is written over itself and brought to the disk, since neither a lock nor a
    /// statement that changes no row is noticed by a disk that has become read-only. For the next 30 seconds it is enough
    /// that the thread answers and nobody else holds the lock.
    ///
    /// Where the reserve is not whole, it is made so if there is room. A full disk is [`rusqlite::ErrorCode::DiskFull`], whatever the kernel calls it.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::Statement`], [`DatabaseError::Closed`].
    pub async fn check(&self) -> Result<(), DatabaseError> {
        let last = *self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|when| when.elapsed() < FRESH) {
            return self.run(|writer| writer.probe(|_| Ok(()))).await;
        }
        self.run(|writer| writer.probe(touch)).await?;
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
        self.run(|writer| work(writer.connection())).await
    }

    async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnOnce(&mut Writer) -> Result<T, E> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            // The caller may be gone; the work is done all the same.
            let _ = answer.send(work(writer));
        });
        self.jobs
            .send(job)
            .await
            .map_err(|_| DatabaseError::Closed)?;
        answered.await.map_err(|_| DatabaseError::Closed)?
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::TransactionBehavior;

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
