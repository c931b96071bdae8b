//! Volumes of storages of the type `zfspool`, which is what containers on a real node have. Other types are refused.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::died::{Died, Outcome};
use crate::program::run;

const LIMIT: Duration = Duration::from_secs(60);

/// `storage.cfg`: pools by storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storages(Vec<(String, String)>);

impl Storages {
    /// Reads `storage.cfg`.
    pub fn read(text: &str) -> Self {
        let mut storages = Vec::new();
        let mut current = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("zfspool:") {
                current = Some(name.trim().to_owned());
            } else if !line.starts_with(char::is_whitespace) {
                current = None;
            } else if let (Some(name), Some(pool)) = (&current, line.trim().strip_prefix("pool ")) {
                storages.push((name.clone(), pool.trim().to_owned()));
            }
        }
        Self(storages)
    }

    /// The dataset of a volume.
    ///
    /// # Errors
    ///
    /// There is no such storage.
    pub fn dataset(&self, storage: &str, volume: &str) -> Outcome<String> {
        let found = self.0.iter().find(|(name, _)| name == storage);
        let (_, pool) =
            found.ok_or_else(|| Died::new(format!("storage '{storage}' does not exist")))?;
        Ok(format!("{pool}/{volume}"))
    }
}

/// Where a dataset is mounted; mounts it if need be.
///
/// # Errors
///
/// There is none, or it cannot be mounted.
pub fn activate(dataset: &str) -> Outcome<Utf8PathBuf> {
    let get = ["get", "-Hp", "-o", "value", "mountpoint,mounted", dataset];
    let values = run("zfs", &get, LIMIT)?;
    let mut values = values.lines();
    let (at, mounted) = (values.next().unwrap_or_default(), values.next());
    if mounted != Some("yes") {
        run("zfs", &["mount", dataset], LIMIT)?;
    }
    let at = Utf8Path::new(at);
    match at.is_absolute() {
        true => Ok(at.to_owned()),
        false => Err(Died::new(format!("dataset '{dataset}' has no mountpoint"))),
    }
}

/// Destroys a volume, with its snapshots.
///
/// # Errors
///
/// Something was cloned from it, or it is busy.
pub fn destroy(dataset: &str) -> Outcome {
    run("zfs", &["destroy", "-r", dataset], LIMIT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_found() {
        let storages = Storages::read(
            "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\nzfspool: nex\n\tpool tank/nex\n\tcontent rootdir,images\n",
        );
        assert_eq!(
            storages.dataset("nex", "subvol-100-x").unwrap(),
            "tank/nex/subvol-100-x"
        );
        let died = storages.dataset("local", "x").unwrap_err();
        assert_eq!(died.message, "storage 'local' does not exist");
    }
}
