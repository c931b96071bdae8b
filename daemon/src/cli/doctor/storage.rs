//! Where images and root filesystems are.

use camino::Utf8Path;
use nexcage_zfs::dataset_room;

use super::Doctor;
use super::finding::Finding;
use crate::cli::human;
use crate::error::Chain;
use crate::runtime::{StorageOutlook, storage_outlook};

const CHECK: &str = "storage";

/// Less than this, and an image may not fit: with either driver its layers are first inflated below `storage.root`.
const LITTLE: u64 = 2 << 30;

/// What was found of the driver that the daemon takes.
#[derive(Debug)]
struct Found {
    outlook: StorageOutlook,
    /// Of the `zfs` driver: free bytes of its dataset, `None` if that is not there, or why nobody knows.
    dataset: Result<Option<u64>, String>,
    /// Free bytes where `storage.root` is or will be.
    free: Option<u64>,
}

pub(super) async fn storage(doctor: &Doctor) -> Finding {
    let outlook = match storage_outlook(&doctor.config, &doctor.paths).await {
        Ok(outlook) => outlook,
        Err(error) => {
            let reason = Chain(&error).to_string();
            return Finding::failed(CHECK, reason, "see docs/storage.md");
        }
    };
    let dataset = match &outlook.dataset {
        Some(dataset) => dataset_room(dataset)
            .await
            .map_err(|e| Chain(&e).to_string()),
        None => Ok(None),
    };
    let root = doctor.paths.root().to_owned();
    let free = tokio::task::spawn_blocking(move || free_bytes(&root)).await;
    judge(&Found {
        outlook,
        dataset,
        free: free.ok().flatten(),
    })
}

fn judge(found: &Found) -> Finding {
    let StorageOutlook { dataset, reason } = &found.outlook;
    match dataset {
        None => judge_overlay(&format!("overlay, because {reason}"), found.free),
        Some(dataset) => {
            let driver = format!("zfs on {dataset}, because {reason}");
            match &found.dataset {
                Ok(Some(free)) => judge_zfs(&driver, dataset, *free, found.free),
                Ok(None) => no_dataset(&driver, dataset),
                Err(error) => {
                    let reason = format!("{driver}; but {error}");
                    Finding::failed(CHECK, reason, "see zpool status -x")
                }
            }
        }
    }
}

fn judge_overlay(driver: &str, free: Option<u64>) -> Finding {
    match free {
        Some(free) if free < LITTLE => Finding::warning(
            CHECK,
            format!("{driver}; but only {} are free", human::size(free)),
            "make room, or move storage.root",
        ),
        Some(free) => Finding::ok(CHECK, format!("{driver}; {} are free", human::size(free))),
        None => Finding::ok(CHECK, driver.to_owned()),
    }
}

/// `free` is the dataset's, `root` that of `storage.root`.
fn judge_zfs(driver: &str, dataset: &str, free: u64, root: Option<u64>) -> Finding {
    let size = human::size(free);
    match root {
        _ if free < LITTLE => Finding::warning(
            CHECK,
            format!("{driver}; but only {size} are free there"),
            format!("make room in the pool, or raise the quota of {dataset}"),
        ),
        Some(root) if root < LITTLE => {
            let root = human::size(root);
            Finding::warning(
                CHECK,
                format!("{driver}; {size} are free there, but only {root} in storage.root"),
                "make room, or move storage.root",
            )
        }
        _ => Finding::ok(CHECK, format!("{driver}; {size} are free there")),
    }
}

fn no_dataset(driver: &str, dataset: &str) -> Finding {
    Finding::failed(
        CHECK,
        format!("{driver}; but there is no dataset {dataset}, or its pool is not imported"),
        format!("zpool import, or zfs create {dataset}"),
    )
}

/// Free bytes of the file system that a directory is or will be on. Blocking.
fn free_bytes(directory: &Utf8Path) -> Option<u64> {
    let there = directory.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(there.as_std_path()).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    fn found(dataset: Option<&str>, room: Result<Option<u64>, String>, free: u64) -> Finding {
        judge(&Found {
            outlook: StorageOutlook {
                dataset: dataset.map(str::to_owned),
                reason: "storage.driver says so".into(),
            },
            dataset: room,
            free: Some(free),
        })
    }

    #[test]
    fn overlay() {
        let well = found(None, Ok(None), 50 << 30);
        assert_eq!(well.state, State::Ok);
        assert!(well.reason.ends_with("; 50.0 GiB are free"), "{well:?}");
        let little = found(None, Ok(None), 1 << 30);
        assert_eq!(little.state, State::Warning);
        assert!(little.reason.ends_with("only 1.0 GiB are free"));
    }

    #[test]
    fn zfs() {
        let of = |room, free| found(Some("tank/n"), room, free);
        let well = of(Ok(Some(30 << 30)), 50 << 30);
        assert_eq!(well.state, State::Ok);
        assert!(
            well.reason.ends_with("; 30.0 GiB are free there"),
            "{well:?}"
        );
        assert_eq!(of(Ok(Some(LITTLE)), LITTLE).state, State::Ok);

        let little = of(Ok(Some(LITTLE - 1)), 50 << 30);
        assert_eq!(little.state, State::Warning);
        assert!(little.reason.ends_with("only 1.9 GiB are free there"));
        assert!(little.remedy.unwrap().contains("quota of tank/n"));
        let full = of(Ok(Some(0)), 50 << 30);
        assert!(full.reason.ends_with("only 0 B are free there"));

        let root = of(Ok(Some(30 << 30)), 1 << 20);
        assert_eq!(root.state, State::Warning);
        assert!(root.reason.ends_with("only 1.0 MiB in storage.root"));

        let gone = of(Ok(None), 50 << 30);
        assert_eq!(gone.state, State::Failed);
        assert!(gone.remedy.unwrap().contains("zfs create tank/n"));
        let unknown = of(Err("the pool is suspended".into()), 50 << 30);
        assert_eq!(unknown.state, State::Failed);
        assert!(unknown.reason.contains("suspended"));
    }

    #[test]
    fn room_is_measured_where_a_directory_will_be() {
        assert!(free_bytes(Utf8Path::new("/no/such/directory")).is_some());
    }
}
