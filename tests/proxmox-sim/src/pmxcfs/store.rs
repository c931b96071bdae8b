//! Where the tree is kept: an SQLite file, as pmxcfs keeps its own, with the same promises. A change is whole or not there; the last ones
//! may be lost with the power, and none with the process.

use camino::Utf8Path;
use rusqlite::{Connection, params};

/// An entry as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) inode: u64,
    pub(super) parent: u64,
    pub(super) mtime: u32,
    pub(super) name: String,
    /// `None` is a directory.
    pub(super) data: Option<Vec<u8>>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
}

impl Store {
    pub(super) fn open(file: &Utf8Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(file)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // Does not wait for the disk. pmxcfs does not either, and tests compare times.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS tree (
                inode INTEGER PRIMARY KEY, parent INTEGER NOT NULL, mtime INTEGER NOT NULL, name TEXT NOT NULL, data BLOB
            )",
        )?;
        Ok(Self { connection })
    }

    /// Everything, in no order.
    pub(super) fn load(&self) -> rusqlite::Result<Vec<Row>> {
        let mut all = self
            .connection
            .prepare("SELECT inode, parent, mtime, name, data FROM tree")?;
        let rows = all.query_map([], |row| {
            Ok(Row {
                inode: row.get::<_, i64>(0)?.cast_unsigned(),
                parent: row.get::<_, i64>(1)?.cast_unsigned(),
                mtime: row.get(2)?,
                name: row.get(3)?,
                data: row.get(4)?,
            })
        })?;
        rows.collect()
    }

    /// Makes or changes an entry, and removes the one that it replaces, at once.
    pub(super) fn put(&mut self, row: &Row, replaced: Option<u64>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        if let Some(inode) = replaced {
            delete(&transaction, inode)?;
        }
        transaction
            .prepare_cached("INSERT OR REPLACE INTO tree VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                row.inode.cast_signed(),
                row.parent.cast_signed(),
                row.mtime,
                row.name,
                row.data
            ])?;
        transaction.commit()
    }

    pub(super) fn remove(&mut self, inode: u64) -> rusqlite::Result<()> {
        delete(&self.connection, inode)
    }
}

fn delete(connection: &Connection, inode: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM tree WHERE inode = ?1")?
        .execute([inode.cast_signed()])?;
    Ok(())
}
