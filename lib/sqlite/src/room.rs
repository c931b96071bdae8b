//! Telling a full disk from a broken one.
#![allow(unsafe_code)]

use rusqlite::{Connection, Error, ErrorCode, ffi};
use rustix::io::Errno;

/// Says why there was an input/output error. The want of room gets its own name, [`ErrorCode::DiskFull`]: SQLite gives it only to a
/// write that was answered with ENOSPC. A quota, and a sync or a file in shared memory that finds no room, are input/output errors
/// for it, as is a disk that has failed.
///
/// `error` is the last one of the connection.
pub(crate) fn explained(conn: &Connection, error: Error) -> Error {
    let Error::SqliteFailure(failure, _) = error else {
        return error;
    };
    if failure.code != ErrorCode::SystemIoFailure {
        return error;
    }
    match system_error(conn) {
        full @ (Errno::NOSPC | Errno::DQUOT) => Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_FULL),
            Some(format!("database or disk is full: {full}")),
        ),
        reason => Error::SqliteFailure(failure, Some(format!("disk I/O error: {reason}"))),
    }
}

/// Whether it is for want of room that something failed; `error` has been [`explained`].
pub(crate) fn is_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// What the kernel said when the connection last had an input/output error.
fn system_error(conn: &Connection) -> Errno {
    // SAFETY: the connection is open and borrowed until this returns; nothing but a field of it is read.
    let number = unsafe { ffi::sqlite3_system_errno(conn.handle()) };
    Errno::from_raw_os_error(number)
}
