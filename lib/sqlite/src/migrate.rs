//! Bringing a database file to the schema this build knows.

use rusqlite::{Connection, TransactionBehavior};

use crate::DatabaseError;

/// Applies every script from the file's `user_version` on, each in its own transaction.
pub(crate) fn migrate(conn: &mut Connection, scripts: &[&str]) -> Result<(), DatabaseError> {
    let known = i64::try_from(scripts.len()).unwrap_or(i64::MAX);
    loop {
        let tx = conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(DatabaseError::Migrate)?;
        let version: i64 = tx
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(DatabaseError::Migrate)?;
        if version > known {
            return Err(DatabaseError::TooNew {
                found: version,
                known,
            });
        }
        let Some(script) = usize::try_from(version).ok().and_then(|v| scripts.get(v)) else {
            return Ok(());
        };
        tx.execute_batch(script).map_err(DatabaseError::Migrate)?;
        tx.pragma_update(None, "user_version", version + 1)
            .map_err(DatabaseError::Migrate)?;
        tx.commit().map_err(DatabaseError::Migrate)?;
    }
}
