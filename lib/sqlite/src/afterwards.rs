//! Bringing to the disk what nobody waited for.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

/// How long changes are gathered: one wait for the disk serves all of them.
const GATHER: Duration = Duration::from_millis(250);

/// The thread that syncs the write-ahead log some time after a change that did not. It ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Afterwards {
    changes: Sender<()>,
}

impl Afterwards {
    /// `path` is the database's.
    pub(crate) fn start(path: &Utf8Path) -> io::Result<Self> {
        let (changes, changed) = channel();
        let log = Utf8PathBuf::from(format!("{path}-wal"));
        std::thread::Builder::new()
            .name("sqlite-sync".into())
            .spawn(move || serve(&changed, || sync(&log)))?;
        Ok(Self { changes })
    }

    /// Returns at once.
    pub(crate) fn sync_soon(&self) {
        // The thread goes last.
        let _ = self.changes.send(());
    }
}

/// Calls `sync` once after each group of changes.
fn serve(changed: &Receiver<()>, sync: impl Fn()) {
    while changed.recv().is_ok() {
        let end = Instant::now() + GATHER;
        while changed
            .recv_timeout(end.saturating_duration_since(Instant::now()))
            .is_ok()
        {}
        sync();
    }
}

fn sync(log: &Utf8Path) {
    // A log that is gone has been taken over into the database, which SQLite syncs itself. One that cannot be synced makes the next
    // change fail that waits for the disk, and that one is reported.
    let _ = File::open(log).and_then(|file| file.sync_data());
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn many_changes_are_synced_once_and_the_last_ones_too() {
        let (changes, changed) = channel();
        for _ in 0..10 {
            changes.send(()).unwrap();
        }
        // The database is closed before they are on disk.
        drop(changes);
        let synced = Cell::new(0);
        serve(&changed, || synced.set(synced.get() + 1));
        assert_eq!(synced.get(), 1);
    }
}
