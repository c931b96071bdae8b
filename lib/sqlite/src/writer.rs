//! The connection, with all that happens on its thread.

use std::time::Duration;

use camino::Utf8Path;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::DatabaseError;
use crate::migrate::migrate;
use crate::reserve::Reserve;
use crate::room;

/// When a commit returns (sqlite.org/pragma.html#pragma_synchronous).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Synchronous {
    /// When it is on the disk.
    Full,
    /// At once. In WAL mode this leaves out the fsync of each commit, and no other.
    Normal,
}

impl Synchronous {
    fn value(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

/// The one connection to a file, and the room that is kept for it.
#[derive(Debug)]
pub(crate) struct Writer {
    conn: Connection,
    reserve: Reserve,
}

impl Writer {
    /// Opens the file, on a full disk, too: for that SQLite needs some room.
    pub(crate) fn open(path: &Utf8Path, scripts: &[&str]) -> Result<Self, DatabaseError> {
        let reserve = Reserve::of(path);
        let conn = loop {
            match connect(path, scripts) {
                Err(e) if is_full(&e) && gives_up(&reserve) => {}
                done => break done?,
            }
        };
        if let Err(error) = reserve.fill() {
            tracing::warn!(%error, path = %reserve.path(), "no room can be kept for taking things away; nothing new is recorded until it can");
        }
        Ok(Self { conn, reserve })
    }

    /// The connection, for queries.
    pub(crate) fn connection(&self) -> &Connection {
        &self.conn
    }

    /// A transaction that records something new, which leaves the reserve alone and is refused as long as that is not whole.
    pub(crate) fn add<T, E: From<DatabaseError>>(
        &mut self,
        synchronous: Synchronous,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.reserve.fill().map_err(|source| {
            let path = self.reserve.path().to_string();
            DatabaseError::Reserve { path, source }
        })?;
        let done = attempt(&mut self.conn, synchronous, work);
        done.unwrap_or_else(|e| Err(DatabaseError::Statement(e).into()))
    }

    /// A transaction that changes or takes away what is there. Where there is no room for it, it is tried again with some of
    /// the reserve, as long as there is some.
    ///
    /// SQLite writes at the commit: before, it would take changes of two megabytes. So nothing is lost on an error of `work`.
    pub(crate) fn amend<T, E: From<DatabaseError>>(
        &mut self,
        synchronous: Synchronous,
        mut work: impl FnMut(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            match attempt(&mut self.conn, synchronous, &mut work) {
                Ok(done) => return done,
                Err(e) if room::is_full(&e) && gives_up(&self.reserve) => {}
                Err(e) => return Err(DatabaseError::Statement(e).into()),
            }
        }
    }

    /// A transaction that leaves the reserve alone, whole or not; makes it whole before, if there is room now.
    pub(crate) fn probe(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        // Who wants to add something is told.
        let _ = self.reserve.fill();
        attempt(&mut self.conn, Synchronous::Full, work)?
    }
}

fn connect(path: &Utf8Path, scripts: &[&str]) -> Result<Connection, DatabaseError> {
    let cannot = |source| DatabaseError::Open {
        path: path.to_string(),
        source,
    };
    let mut conn = Connection::open(path).map_err(cannot)?;
    let set = configure(&conn);
    set.map_err(|e| cannot(room::explained(&conn, e)))?;
    match migrate(&mut conn, scripts) {
        Err(DatabaseError::Migrate(e)) => Err(DatabaseError::Migrate(room::explained(&conn, e))),
        done => done.map(|()| conn),
    }
}

fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", Synchronous::Full.value())?;
    conn.pragma_update(None, "foreign_keys", "ON")
}

fn is_full(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Open { source, .. } | DatabaseError::Migrate(source) => {
            room::is_full(source)
        }
        _ => false,
    }
}

/// Gives up some of the reserve; `false` if nothing is left of it, or it cannot be.
fn gives_up(reserve: &Reserve) -> bool {
    match reserve.give_up() {
        Ok(true) => {
            tracing::info!(path = %reserve.path(), "the disk is full; gave up some of the room kept for taking things away");
            true
        }
        Ok(false) => false,
        Err(error) => {
            tracing::warn!(%error, path = %reserve.path(), "the disk is full, and the room kept for that cannot be given up");
            false
        }
    }
}

/// Runs `work` in one transaction. The outer error is that of the transaction itself, the inner one that of `work`; with
/// either nothing was changed.
fn attempt<T, E>(
    conn: &mut Connection,
    synchronous: Synchronous,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> rusqlite::Result<Result<T, E>> {
    let done = transaction(conn, synchronous, work);
    done.map_err(|error| room::explained(conn, error))
}

fn transaction<T, E>(
    conn: &mut Connection,
    synchronous: Synchronous,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> rusqlite::Result<Result<T, E>> {
    conn.pragma_update(None, "synchronous", synchronous.value())?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match work(&tx) {
        Ok(out) => tx.commit().map(|()| Ok(out)),
        Err(error) => Ok(Err(error)),
    }
}

/// Writes the file's first page as it is: for SQLite a pragma that sets what is there already is a change.
pub(crate) fn touch(tx: &Transaction<'_>) -> Result<(), DatabaseError> {
    let version: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(tx.pragma_update(None, "user_version", version)?)
}
