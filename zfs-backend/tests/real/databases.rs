//! The daemon's databases, where the directories of the system are in a pool themselves: taking things away works when it is full.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_sqlite::rusqlite::{Error, ErrorCode};
use nexcage_sqlite::{Database, DatabaseError};

use crate::common::*;

const SCHEMA: &[&str] = &["CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL)"];

/// A dataset with a file system in it.
struct Directory {
    place: Place,
    path: Utf8PathBuf,
}

impl Directory {
    fn new(quota: &str) -> Self {
        let place = Place::with_size("96M", "");
        let path = place.dir.join("state");
        let mountpoint = format!("mountpoint={path}");
        let quota = format!("quota={quota}");
        let dataset = place.dataset("/state");
        zfs(&["create", "-o", &mountpoint, "-o", &quota, &dataset]);
        Self { place, path }
    }

    fn filler(&self) -> Utf8PathBuf {
        self.path.join("filler")
    }

    /// Takes all the room there is, also what becomes free when the transaction group ends.
    fn fill(&self) {
        let mut filler = File::options()
            .append(true)
            .create(true)
            .open(self.filler())
            .unwrap();
        let mut block = vec![0; 128 << 10];
        let mut random = File::open("/dev/urandom").unwrap();
        loop {
            let mut written = 0;
            for size in [block.len(), 4096] {
                loop {
                    random.read_exact(&mut block[..size]).unwrap();
                    match filler.write_all(&block[..size]) {
                        Ok(()) => written += size,
                        Err(e) if is_room(e.kind()) => break,
                        Err(e) => panic!("{e}"),
                    }
                }
            }
            self.place.sync();
            if written == 0 {
                return;
            }
        }
    }

    fn reserve(&self) -> u64 {
        fs::metadata(self.path.join("x.db-reserve")).map_or(0, |m| m.len())
    }
}

fn is_room(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn open(dir: &Utf8Path) -> Database {
    Database::open(&dir.join("x.db"), SCHEMA).unwrap()
}

/// More than a page, and not to be compressed.
fn text_of(seed: i64) -> String {
    let mut state = seed.unsigned_abs() + 1;
    let letters = (0..10_000).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b' ' + (state >> 58) as u8)
    });
    letters.collect()
}

async fn add(db: &Database, a: i64) -> Result<(), DatabaseError> {
    db.write(move |tx| {
        tx.execute("INSERT INTO t VALUES (?1, ?2)", (a, text_of(a)))?;
        Ok(())
    })
    .await
}

async fn change(db: &Database, a: i64, seed: i64) -> Result<usize, DatabaseError> {
    let b = text_of(seed);
    db.amend(move |tx| Ok(tx.execute("UPDATE t SET b = ?2 WHERE a = ?1", (a, &b))?))
        .await
}

async fn remove(db: &Database, a: i64) -> Result<usize, DatabaseError> {
    db.amend_early(move |tx| Ok(tx.execute("DELETE FROM t WHERE a = ?1", [a])?))
        .await
}

async fn numbers(db: &Database) -> Vec<i64> {
    db.read(|c| {
        let mut query = c.prepare("SELECT a FROM t ORDER BY a")?;
        let rows = query.query_map([], |row| row.get(0))?;
        Ok::<_, DatabaseError>(rows.collect::<Result<_, _>>()?)
    })
    .await
    .unwrap()
}

fn refused_for_room(refused: &DatabaseError) -> bool {
    match refused {
        DatabaseError::Statement(Error::SqliteFailure(e, _)) => e.code == ErrorCode::DiskFull,
        DatabaseError::Reserve { source, .. } => is_room(source.kind()),
        _ => false,
    }
}

async fn nothing_is_added_and_everything_can_be_changed(quota: &str) {
    let dir = Directory::new(quota);
    let db = open(&dir.path);
    for a in 1..=3 {
        add(&db, a).await.unwrap();
    }
    let whole = dir.reserve();
    assert!(whole > 0);
    dir.fill();
    let refused = add(&db, 4).await.unwrap_err();
    assert!(refused_for_room(&refused), "{refused:?}");
    let full = db.check().await.unwrap_err();
    assert!(refused_for_room(&full), "{full:?}");

    // Somebody else takes what is given up, each time.
    for seed in 10..13 {
        assert_eq!(change(&db, 1, seed).await.unwrap(), 1);
        dir.fill();
    }
    let left = dir.reserve();
    assert!(left < whole, "nothing of the reserve was needed");
    assert_eq!(remove(&db, 2).await.unwrap(), 1);
    drop(db);

    // Opened when it is full.
    dir.fill();
    let db = open(&dir.path);
    assert_eq!(numbers(&db).await, [1, 3]);
    assert_eq!(remove(&db, 3).await.unwrap(), 1);

    fs::remove_file(dir.filler()).unwrap();
    dir.place.sync();
    dir.place.sync();
    db.check().await.unwrap();
    assert_eq!(dir.reserve(), whole);
    add(&db, 5).await.unwrap();
    assert_eq!(numbers(&db).await, [1, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_lets_rows_be_changed_and_removed() {
    nothing_is_added_and_everything_can_be_changed("none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_quota_lets_rows_be_changed_and_removed() {
    nothing_is_added_and_everything_can_be_changed("24M").await;
}
