//! SQLite as nexcage uses it: one file, one writer, nothing lost.
//!
//! [`Database::open`] starts one thread that owns the only connection. Callers send it
//! closures through a bounded channel and await the answer through a oneshot, so no
//! async worker ever waits for a disk and no two transactions ever compete. The file is
//! in WAL mode with `synchronous=FULL`: what [`Database::write`] has acknowledged
//! survives a power cut. [`Database::write_early`] is for steps on the way there: they survive the process.
//!
//! On a full disk nothing new is recorded, and what is there can be changed and taken away all the same: some megabytes are kept
//! for that in a file beside the database, `<file>-reserve`. [`Database::write`] is for what is new, [`Database::amend`] for the rest.
//!
//! The schema is a list of SQL scripts; script *n* takes the file from `user_version`
//! *n* to *n + 1*, each in one immediate transaction. A file from a newer nexcage is
//! refused.
//!
//! Invariants: the thread ends when the last [`Database`] handle is dropped, after the
//! work already queued; a closure that fails or panics is rolled back. A reserve is given up a slice at a time, only when a change
//! found no room, and nothing new is recorded before it is whole again.
//!
//! Start reading at [`Database`].

mod afterwards;
mod database;
mod migrate;
mod reserve;
mod room;
#[cfg(test)]
mod small_disk;
mod writer;

pub use database::Database;
pub use database::DatabaseError;
pub use rusqlite;
