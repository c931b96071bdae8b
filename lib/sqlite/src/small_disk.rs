//! Databases on a disk that is full.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::{Connection, Error, ErrorCode};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{Database, DatabaseError};

const SCHEMA: &[&str] = &["CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL)"];

/// Bytes of a disk that has room for a database, its reserve, and as much again.
const SIZE: u64 = 12 << 20;

/// A file system in memory.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None` if we are not root.
    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={SIZE}")).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", dir.path(), "tmpfs", flags, options.as_c_str()).unwrap();
        Some(Self { dir })
    }

    fn path(&self) -> &Utf8Path {
        Utf8Path::from_path(self.dir.path()).unwrap()
    }

    fn database(&self) -> Utf8PathBuf {
        self.path().join("x.db")
    }

    /// Bytes of the reserve.
    fn reserve(&self) -> u64 {
        fs::metadata(self.path().join("x.db-reserve")).map_or(0, |m| m.len())
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let path = self.path().join("filler");
        let mut filler = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        loop {
            match filler.write_all(&[1; 4096]) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::StorageFull => return,
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// Gives it back.
    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(self.path().as_std_path(), UnmountFlags::DETACH).unwrap();
    }
}

/// Something new that takes more than a page.
async fn add(db: &Database, a: i64) -> Result<(), DatabaseError> {
    let b = "b".repeat(10_000);
    db.write(move |tx| {
        tx.execute("INSERT INTO t VALUES (?1, ?2)", (a, b))?;
        Ok(())
    })
    .await
}

/// A change of what is there that takes as much.
async fn change(db: &Database, a: i64, letter: &str) -> Result<usize, DatabaseError> {
    let b = letter.repeat(10_000);
    db.amend(move |tx| Ok(tx.execute("UPDATE t SET b = ?2 WHERE a = ?1", (a, &b))?))
        .await
}

async fn remove(db: &Database, a: i64) -> Result<usize, DatabaseError> {
    db.amend_early(move |tx| Ok(tx.execute("DELETE FROM t WHERE a = ?1", [a])?))
        .await
}

/// The numbers of all rows, and the letters that they are of.
async fn all(db: &Database) -> Vec<(i64, String)> {
    db.read(|c| {
        let mut query = c.prepare("SELECT a, substr(b, 1, 1) FROM t ORDER BY a")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok::<_, DatabaseError>(rows.collect::<Result<_, _>>()?)
    })
    .await
    .unwrap()
}

fn is_full(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Statement(Error::SqliteFailure(e, _)) if e.code == ErrorCode::DiskFull)
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_added_and_everything_can_be_changed() {
    let Some(disk) = Disk::mount() else { return };
    let db = Database::open(&disk.database(), SCHEMA).unwrap();
    let whole = disk.reserve();
    assert_eq!(whole, 4 << 20);
    for a in 1..=3 {
        add(&db, a).await.unwrap();
    }
    disk.fill();
    let refused = add(&db, 4).await.unwrap_err();
    assert!(is_full(&refused) && refused.is_retryable(), "{refused:?}");
    assert_eq!(disk.reserve(), whole);
    let full = db.check().await.unwrap_err();
    assert!(is_full(&full), "{full:?}");

    // Somebody else takes what is given up, each time.
    for letter in ["c", "d", "e", "f"] {
        assert_eq!(change(&db, 1, letter).await.unwrap(), 1);
        disk.fill();
    }
    let left = disk.reserve();
    assert!(0 < left && left < whole, "{left}");
    let refused = add(&db, 5).await.unwrap_err();
    assert!(
        matches!(refused, DatabaseError::Reserve { .. }),
        "{refused:?}"
    );
    assert!(refused.is_retryable());
    db.check().await.unwrap_err();
    assert_eq!(disk.reserve(), left);

    assert_eq!(remove(&db, 2).await.unwrap(), 1);
    let rows = [(1, "f".to_owned()), (3, "b".to_owned())];
    assert_eq!(all(&db).await, rows);
    drop(db);

    // It is opened with little room, too.
    let db = Database::open(&disk.database(), SCHEMA).unwrap();
    assert_eq!(all(&db).await, rows);
    disk.fill();
    assert_eq!(remove(&db, 3).await.unwrap(), 1);

    disk.free();
    db.check().await.unwrap();
    assert_eq!(disk.reserve(), whole);
    add(&db, 6).await.unwrap();
    assert_eq!(all(&db).await.len(), 2);
}

#[tokio::test]
async fn a_reserve_is_spent_once() {
    let Some(disk) = Disk::mount() else { return };
    let db = Database::open(&disk.database(), SCHEMA).unwrap();
    add(&db, 1).await.unwrap();
    disk.fill();
    let mut changes = 0;
    let mut last = "b";
    let refused = loop {
        // SQLite would not write what is there.
        let next = if last == "c" { "d" } else { "c" };
        match change(&db, 1, next).await {
            Ok(_) => last = next,
            Err(refused) => break refused,
        }
        changes += 1;
        assert!(changes < 1000);
        disk.fill();
    };
    assert!(is_full(&refused), "{refused:?}");
    assert!(changes >= 16, "{changes} changes");
    assert_eq!(disk.reserve(), 0);
    assert_eq!(all(&db).await, [(1, last.to_owned())]);
}

#[tokio::test]
async fn the_last_room_of_a_disk_is_left_to_others() {
    let Some(disk) = Disk::mount() else { return };
    // Room for a reserve, and not for twice as much.
    fs::write(disk.path().join("theirs"), vec![1; 6 << 20]).unwrap();
    let db = Database::open(&disk.database(), SCHEMA).unwrap();
    assert_eq!(disk.reserve(), 0);
    let refused = add(&db, 1).await.unwrap_err();
    assert!(
        matches!(refused, DatabaseError::Reserve { .. }),
        "{refused:?}"
    );
    fs::remove_file(disk.path().join("theirs")).unwrap();
    add(&db, 1).await.unwrap();
    assert_eq!(disk.reserve(), 4 << 20);
}

#[tokio::test]
async fn what_opening_takes_is_given_up_for_it() {
    let Some(disk) = Disk::mount() else { return };
    // Closed when this returns, and not by a thread some time later.
    let conn = Connection::open(disk.database()).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.execute_batch(SCHEMA[0]).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    drop(conn);
    disk.fill();
    // Shared memory that finds no room is an input/output error for SQLite.
    let refused = Database::open(&disk.database(), SCHEMA).unwrap_err();
    let (DatabaseError::Open { source, .. } | DatabaseError::Migrate(source)) = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        source.sqlite_error_code(),
        Some(ErrorCode::DiskFull),
        "{source:?}"
    );

    disk.free();
    fs::write(disk.path().join("x.db-reserve"), vec![1; 1 << 20]).unwrap();
    disk.fill();
    let db = Database::open(&disk.database(), SCHEMA).unwrap();
    assert_eq!(all(&db).await, []);
    assert!(disk.reserve() < 1 << 20);
}
