//! The daemon on a pool that is not there.

use anyhow::{Context as _, ensure};
use nexcage_tests::{image, process, wait};
use serde_json::Value;

use super::nexcage;
use crate::Node;
use crate::node::{PATIENCE, systemctl};

const POOL: &str = "tank";

#[test]
fn a_pool_that_is_not_imported_is_said_and_waited_for() {
    Node::test(|node| {
        let mounted = mountpoint(node)?;
        systemctl(&["stop", "nexcage.service"])?;
        let missed = without_the_pool(&mounted);
        // Whatever comes after needs it.
        let imported = process::run(
            "zpool",
            &["import", "-d", "/dev/disk/by-id", POOL],
            PATIENCE,
        )?;
        systemctl(&["start", "--no-block", "nexcage.service"])?;
        missed?;
        imported.success()?;
        node.wait_until_it_serves()?;
        let info: Value = serde_json::from_str(&nexcage(&["info", "--output", "json"])?)?;
        ensure!(
            info["storage_driver"] == "zfs",
            "it took another driver: {info}"
        );
        node.crictl().run(&["inspecti", image::BUSYBOX]).map(drop)
    });
}

/// Takes the pool away and expects the daemon to say what is to be done.
fn without_the_pool(mounted: &str) -> anyhow::Result<()> {
    process::run("umount", &[mounted], PATIENCE)?.success()?;
    // What the daemon had open is closed a moment after its end.
    wait::until_true("the pool is exported", PATIENCE, || {
        Ok(process::run("zpool", &["export", POOL], PATIENCE)?.code == Some(0))
    })?;
    let count = || {
        let unit = ["--unit", "nexcage", "--output", "cat", "--no-pager"];
        let text = process::run("journalctl", &unit, PATIENCE)?.success()?;
        let remedy = format!("zpool import {POOL}");
        anyhow::Ok(text.lines().filter(|line| line.contains(&remedy)).count())
    };
    let before = count()?;
    systemctl(&["start", "--no-block", "nexcage.service"])?;
    wait::until_true("the daemon tells of it", 2 * PATIENCE, || {
        Ok(count()? > before)
    })
}

/// What the daemon leaves mounted.
fn mountpoint(node: &Node) -> anyhow::Result<String> {
    let usage = node.crictl().json(&["imagefsinfo"])?;
    usage["status"]["imageFilesystems"][0]["fsId"]["mountpoint"]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("no mount point in {usage}"))
}
