//! `nexcage reset`: the machine as if the daemon had never run there.
//!
//! It is the daemon's own removal, run to its end in the place of the daemon: pods are taken over and removed one by one, so that
//! CNI plugins give back addresses and rules. Only then are the directories removed, and only if nothing is mounted in them:
//! what cannot be removed stays on record, and another reset goes on with it.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use camino::Utf8Path;
use nexcage_config::{Config, LogLevel, Logging};

use super::socket::Claim;
use super::{DRAIN, choose_cryptography, load, logging};
use crate::error::Chain;
use crate::pods;
use crate::reconcile;
use crate::runtime::{Runtime, assemble};

/// Removes pods, containers, images and state.
///
/// # Errors
///
/// If a daemon runs, or if something could not be removed.
pub(crate) fn reset(path: Option<&Utf8Path>) -> anyhow::Result<()> {
    let config = load(path)?;
    // To the terminal: whoever resets wants to know why something stays.
    logging::start(&Logging {
        file: None,
        level: LogLevel::Info,
        ..config.logging.clone()
    })?;
    choose_cryptography();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(remove(config))
}

async fn remove(config: Config) -> anyhow::Result<()> {
    let directories = [&config.storage.run_dir, &config.storage.root].map(|d| d.to_path_buf());
    let claim = Claim::take(&config.kubernetes.cri_socket, &config.storage.root)
        .context("stop the daemon first")?;
    let runtime = assemble(config).await.context("cannot start")?;
    reconcile::reconcile(&runtime)
        .await
        .context("cannot take over what the last run left")?;
    remove_pods(&runtime).await?;
    remove_images(&runtime).await?;
    runtime.cgroups.tidy().await;
    runtime.stopping.cancel();
    runtime.images.close().await;
    runtime
        .images
        .layers()
        .dismantle()
        .await
        .context("cannot take away what the storage driver has made")?;
    runtime.tasks.close();
    tokio::time::timeout(DRAIN, runtime.tasks.wait())
        .await
        .context("work under way did not finish in time")?;
    drop(runtime);
    for directory in directories {
        remove_directory(&directory)?;
    }
    drop(claim);
    Ok(())
}

async fn remove_pods(runtime: &Arc<Runtime>) -> anyhow::Result<()> {
    let mut left = 0;
    for pod in runtime.inventory.pods() {
        if let Err(error) = pods::remove_pod(runtime, &pod.id()).await {
            tracing::error!(pod = pod.id(), error = %Chain(&error), "cannot remove pod");
            left += 1;
        }
    }
    ensure!(left == 0, "{left} pods could not be removed");
    Ok(())
}

async fn remove_images(runtime: &Runtime) -> anyhow::Result<()> {
    for image in runtime.images.images().await? {
        runtime.images.remove(&image.id.to_string()).await?;
    }
    runtime
        .images
        .collect()
        .await
        .context("cannot remove layers")?;
    Ok(())
}

/// Removes what is in a directory, and the directory if it is not a mount point.
fn remove_directory(directory: &Utf8Path) -> anyhow::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    if let Some(mount) = mount_below(&mounts, directory) {
        bail!("{mount} is still mounted: {directory} is left as it is");
    }
    let entries = match directory.read_dir_utf8() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {directory}"))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {directory}"))?;
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = match is_dir {
            true => std::fs::remove_dir_all(path),
            false => std::fs::remove_file(path),
        };
        removed.with_context(|| format!("cannot remove {path}"))?;
    }
    // A file system or dataset of its own stays, empty.
    let _ = std::fs::remove_dir(directory);
    Ok(())
}

/// A mount point below `directory`, itself not counted; from the text of proc_pid_mountinfo(5).
fn mount_below<'a>(mountinfo: &'a str, directory: &Utf8Path) -> Option<&'a Utf8Path> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Utf8Path::new)
        .find(|point| *point != directory && point.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory_are_found() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      30 22 0:30 / /var/lib/nexcage rw - zfs tank/n rw\n\
                      31 30 0:31 / /var/lib/nexcage/overlay/m rw - overlay overlay rw\n";
        let below = |directory: &str| mount_below(mounts, Utf8Path::new(directory));
        assert_eq!(
            below("/var/lib/nexcage").map(Utf8Path::as_str),
            Some("/var/lib/nexcage/overlay/m")
        );
        assert!(below("/var/lib/nexcage/overlay/m").is_none());
        assert!(below("/var/lib/nex").is_none());
        assert!(below("/run/nexcage").is_none());
    }

    #[test]
    fn a_directory_goes_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/c"), "").unwrap();
        std::fs::write(root.join("lock"), "").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        remove_directory(&root).unwrap();
        assert!(!root.exists());
        assert!(Utf8Path::new("/etc/passwd").exists());
        remove_directory(&root).unwrap();
    }
}
