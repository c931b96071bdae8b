//! Where images and root filesystems are.

use camino::Utf8Path;
use nexcage_zfs::dataset_exists;

use super::Doctor;
use super::finding::Finding;
use crate::cli::human;
use crate::error::Chain;
use crate::runtime::{StorageOutlook, storage_outlook};

const CHECK: &str = "storage";

/// Less than this, and an image may not fit.
const LITTLE: u64 = 2 << 30;

/// What was found of the driver that the daemon takes.
#[derive(Debug)]
struct Found {
    outlook: StorageOutlook,
    /// Of the `zfs` driver: whether its dataset is there, or why nobody knows.
    dataset: Result<bool, String>,
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
        Some(dataset) => dataset_exists(dataset)
            .await
            .map_err(|e| Chain(&e).to_string()),
        None => Ok(true),
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
    let driver = match dataset {
        Some(dataset) => format!("zfs on {dataset}, because {reason}"),
        None => format!("overlay, because {reason}"),
    };
    match (dataset, &found.dataset, found.free) {
        (Some(dataset), Ok(false), _) => Finding::failed(
            CHECK,
            format!("{driver}; but there is no dataset {dataset}, or its pool is not imported"),
            format!("zpool import, or zfs create {dataset}"),
        ),
        (Some(_), Err(error), _) => Finding::failed(
            CHECK,
            format!("{driver}; but {error}"),
            "apt install zfsutils-linux",
        ),
        (None, _, Some(free)) if free < LITTLE => Finding::warning(
            CHECK,
            format!("{driver}; but only {} are free", human::size(free)),
            "make room, or move storage.root",
        ),
        (None, _, Some(free)) => {
            Finding::ok(CHECK, format!("{driver}; {} are free", human::size(free)))
        }
        _ => Finding::ok(CHECK, driver),
    }
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

    fn found(dataset: Option<&str>, there: Result<bool, String>, free: u64) -> Finding {
        judge(&Found {
            outlook: StorageOutlook {
                dataset: dataset.map(str::to_owned),
                reason: "storage.driver says so".into(),
            },
            dataset: there,
            free: Some(free),
        })
    }

    #[test]
    fn drivers() {
        assert_eq!(found(None, Ok(true), 50 << 30).state, State::Ok);
        assert_eq!(found(None, Ok(true), 1 << 30).state, State::Warning);
        assert_eq!(found(Some("tank/n"), Ok(true), 0).state, State::Ok);
        let gone = found(Some("tank/n"), Ok(false), 0);
        assert!(gone.remedy.unwrap().contains("zfs create tank/n"));
        let none = found(Some("tank/n"), Err("zfs is not installed".into()), 0);
        assert_eq!(none.state, State::Failed);
    }

    #[test]
    fn room_is_measured_where_a_directory_will_be() {
        assert!(free_bytes(Utf8Path::new("/no/such/directory")).is_some());
    }
}
