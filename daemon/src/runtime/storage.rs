//! Which storage driver keeps layers and root filesystems, and why.
//!
//! `auto` decides once: what images and containers were put on is what they are looked for on at every later start, so a pool
//! that is not imported is an error and not a reason to begin anew on overlayfs. The choice is in `<root>/storage-driver`.

use std::io::ErrorKind;
use std::sync::Arc;

use camino::Utf8Path;
use nexcage_config::{Config, StorageDriver};
use nexcage_image_store::LayerStore;
use nexcage_image_store::apply::ApplyLimits;
use nexcage_overlay::{OverlayOptions, OverlayStore};
use nexcage_zfs::{ZfsOptions, ZfsStore, dataset_exists};

use super::Paths;
use super::assemble::AssembleError;
use crate::store::Store;

/// The storage driver in use.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) layers: Arc<dyn LayerStore>,
    /// Why it is this one, for people.
    pub(crate) reason: String,
}

/// A driver and where it keeps things.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Driver {
    Overlay,
    /// With its dataset.
    Zfs(String),
}

impl Driver {
    /// The content of the file that remembers it.
    fn to_line(&self) -> String {
        match self {
            Self::Overlay => "overlay\n".to_owned(),
            Self::Zfs(dataset) => format!("zfs {dataset}\n"),
        }
    }

    fn from_line(line: &str) -> Option<Self> {
        match line.trim().split_once(' ') {
            None if line.trim() == "overlay" => Some(Self::Overlay),
            Some(("zfs", dataset)) => Some(Self::Zfs(dataset.to_owned())),
            _ => None,
        }
    }
}

/// What a start finds.
#[derive(Debug)]
struct Found {
    configured: StorageDriver,
    dataset: String,
    /// What was chosen before.
    before: Option<Driver>,
    /// `auto` alone asks whether the dataset is there.
    dataset_exists: bool,
    /// Containers on record: their root filesystems are where they were made.
    containers: usize,
}

/// Why no driver was chosen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error(
        "{containers} containers have their root filesystems on {before}, and the configuration now says {now}; remove the \
         containers first, or set storage.driver back"
    )]
    InUse {
        containers: usize,
        before: String,
        now: String,
    },
}

/// Decides.
fn choose(found: &Found) -> Result<(Driver, String), Refused> {
    let zfs = || Driver::Zfs(found.dataset.clone());
    let (now, reason) = match (found.configured, &found.before) {
        (StorageDriver::Overlay, _) => (Driver::Overlay, "storage.driver says so".to_owned()),
        (StorageDriver::Zfs, _) => (zfs(), "storage.driver says so".to_owned()),
        (StorageDriver::Auto, Some(Driver::Overlay)) => (
            Driver::Overlay,
            "it was chosen at an earlier start".to_owned(),
        ),
        (StorageDriver::Auto, Some(Driver::Zfs(_))) => {
            (zfs(), "it was chosen at an earlier start".to_owned())
        }
        (StorageDriver::Auto, None) if found.dataset_exists => {
            (zfs(), format!("the dataset {} exists", found.dataset))
        }
        (StorageDriver::Auto, None) => (
            Driver::Overlay,
            format!("there is no dataset {}", found.dataset),
        ),
    };
    match &found.before {
        Some(before) if *before != now && found.containers > 0 => Err(Refused::InUse {
            containers: found.containers,
            before: before.to_line().trim().to_owned(),
            now: now.to_line().trim().to_owned(),
        }),
        _ => Ok((now, reason)),
    }
}

/// Chooses the driver and opens its store.
///
/// # Errors
///
/// A store that cannot be opened, and a change of driver under containers.
pub(super) async fn open(
    config: &Config,
    paths: &Paths,
    store: &Store,
) -> Result<Storage, AssembleError> {
    let found = look(config, paths, store).await?;
    let (driver, reason) =
        choose(&found).map_err(AssembleError::step("cannot choose a storage driver"))?;
    let layers: Arc<dyn LayerStore> = match &driver {
        Driver::Overlay => Arc::new(open_overlay(config, paths).await?),
        Driver::Zfs(dataset) => Arc::new(open_zfs(config, paths, dataset).await?),
    };
    if found.before.as_ref() != Some(&driver) {
        let file = paths.storage_driver();
        remember(&file, &driver).map_err(AssembleError::step(format!("cannot write {file}")))?;
        if let Some(before) = &found.before {
            tracing::warn!(
                before = before.to_line().trim(),
                now = driver.to_line().trim(),
                "the storage driver was changed: images are pulled again, and what the old driver kept stays until it is \
                 removed by hand"
            );
        }
    }
    tracing::info!(driver = driver.to_line().trim(), reason, "storage driver");
    Ok(Storage { layers, reason })
}

/// What a start would choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// The dataset of the `zfs` driver; `None` for `overlay`.
    pub(crate) dataset: Option<String>,
    /// Why this driver.
    pub(crate) reason: String,
}

/// Looks without opening anything.
///
/// # Errors
///
/// If it cannot be found out.
pub(crate) async fn outlook(config: &Config, paths: &Paths) -> Result<Outlook, AssembleError> {
    let found = look_at_disk(config, paths, 0).await?;
    let chosen = choose(&found).map_err(AssembleError::step("cannot choose a storage driver"));
    let (driver, reason) = chosen?;
    Ok(Outlook {
        dataset: match driver {
            Driver::Overlay => None,
            Driver::Zfs(dataset) => Some(dataset),
        },
        reason,
    })
}

async fn look(config: &Config, paths: &Paths, store: &Store) -> Result<Found, AssembleError> {
    let (_, containers) = store.load().await.map_err(AssembleError::step(format!(
        "cannot read {}",
        paths.database()
    )))?;
    look_at_disk(config, paths, containers.len()).await
}

async fn look_at_disk(
    config: &Config,
    paths: &Paths,
    containers: usize,
) -> Result<Found, AssembleError> {
    let configured = config.storage.driver;
    let dataset = config.storage.zfs.dataset.clone();
    let before = remembered(paths)?;
    let asks = configured == StorageDriver::Auto && before.is_none();
    let exists = match asks {
        true => dataset_exists(&dataset)
            .await
            .map_err(AssembleError::step(format!(
                "cannot find out whether the dataset {dataset} exists"
            )))?,
        false => false,
    };
    Ok(Found {
        configured,
        dataset,
        before,
        dataset_exists: exists,
        containers,
    })
}

/// What an earlier start chose.
fn remembered(paths: &Paths) -> Result<Option<Driver>, AssembleError> {
    let file = paths.storage_driver();
    let doing = format!("cannot read {file}");
    match std::fs::read_to_string(&file) {
        Ok(line) => match Driver::from_line(&line) {
            Some(driver) => Ok(Some(driver)),
            None => {
                let problem = format!(
                    "it has {line:?} in it, which is no storage driver; it should have `overlay` or `zfs <dataset>`"
                );
                Err(AssembleError::step(doing)(problem))
            }
        },
        // From before there was a choice.
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Ok(paths.overlay().exists().then_some(Driver::Overlay))
        }
        Err(e) => Err(AssembleError::step(doing)(e)),
    }
}

/// All or nothing, and on the disk.
fn remember(file: &Utf8Path, driver: &Driver) -> std::io::Result<()> {
    let draft = file.with_extension("new");
    std::fs::write(&draft, driver.to_line())?;
    std::fs::File::open(&draft)?.sync_all()?;
    std::fs::rename(&draft, file)
}

fn limits(config: &Config) -> ApplyLimits {
    let limits = &config.storage.layer_limits;
    ApplyLimits {
        max_entries: limits.max_entries,
        max_bytes: limits.max_bytes,
        max_depth: usize::try_from(limits.max_depth).unwrap_or(usize::MAX),
    }
}

async fn open_overlay(config: &Config, paths: &Paths) -> Result<OverlayStore, AssembleError> {
    let options = OverlayOptions {
        root: paths.overlay(),
        run_dir: paths.run().to_owned(),
        limits: limits(config),
    };
    tokio::task::spawn_blocking(move || OverlayStore::open(options))
        .await
        .map_err(AssembleError::step(
            "opening the layer store was interrupted",
        ))?
        .map_err(AssembleError::step(format!(
            "cannot open the layer store in {}",
            paths.overlay()
        )))
}

async fn open_zfs(
    config: &Config,
    paths: &Paths,
    dataset: &str,
) -> Result<ZfsStore, AssembleError> {
    let options = ZfsOptions {
        dataset: dataset.to_owned(),
        root: paths.zfs(),
        run_dir: paths.run().to_owned(),
        limits: limits(config),
        properties: config.storage.rootfs.by_name(),
        checkpoints: usize::try_from(config.storage.zfs.max_checkpoints).unwrap_or(usize::MAX),
    };
    ZfsStore::open(options)
        .await
        .map_err(AssembleError::step(format!(
            "cannot open the layer store in the dataset {dataset}"
        )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(configured: StorageDriver) -> Found {
        Found {
            configured,
            dataset: "tank/nexcage".into(),
            before: None,
            dataset_exists: false,
            containers: 0,
        }
    }

    fn zfs() -> Driver {
        Driver::Zfs("tank/nexcage".into())
    }

    #[test]
    fn auto_takes_zfs_where_the_dataset_exists() {
        let none = found(StorageDriver::Auto);
        let (driver, reason) = choose(&none).unwrap();
        assert_eq!(
            (driver, reason.as_str()),
            (Driver::Overlay, "there is no dataset tank/nexcage")
        );
        let (driver, reason) = choose(&Found {
            dataset_exists: true,
            ..none
        })
        .unwrap();
        assert_eq!(
            (driver, reason.as_str()),
            (zfs(), "the dataset tank/nexcage exists")
        );
    }

    #[test]
    fn auto_stays_with_what_it_chose() {
        for (before, exists) in [(zfs(), false), (Driver::Overlay, true)] {
            let found = Found {
                before: Some(before.clone()),
                dataset_exists: exists,
                containers: 3,
                ..found(StorageDriver::Auto)
            };
            assert_eq!(choose(&found).unwrap().0, before);
        }
    }

    #[test]
    fn a_driver_is_not_pulled_away_from_under_containers() {
        let change = |containers| {
            choose(&Found {
                before: Some(Driver::Overlay),
                containers,
                ..found(StorageDriver::Zfs)
            })
        };
        assert_eq!(change(0).unwrap().0, zfs());
        let refused = change(2).unwrap_err().to_string();
        assert!(
            refused.contains("2 containers") && refused.contains("zfs tank/nexcage"),
            "{refused}"
        );
        let other_dataset = choose(&Found {
            before: Some(Driver::Zfs("old/nexcage".into())),
            containers: 1,
            ..found(StorageDriver::Auto)
        });
        assert!(other_dataset.is_err());
    }

    #[test]
    fn what_was_chosen_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(dir.path()).unwrap().join("driver");
        for driver in [zfs(), Driver::Overlay] {
            remember(&file, &driver).unwrap();
            let line = std::fs::read_to_string(&file).unwrap();
            assert_eq!(Driver::from_line(&line), Some(driver));
        }
        for bad in ["", "zfs", "btrfs x", "overlay x"] {
            assert_eq!(Driver::from_line(bad), None, "{bad}");
        }
    }
}
