//! What the package installs: the unit's watchdog, the log file that may be rotated, and how all of it is taken away.

use std::fs;

use anyhow::{Context as _, ensure};
use nexcage_sqlite::rusqlite::{Connection, TransactionBehavior};
use nexcage_tests::{process, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::node::{PATIENCE, daemon, property, systemctl};
use crate::settings::CONFIG;
use crate::systemd::{counting, goes_on};
use crate::{Inventory, Node};

const DROP_IN: &str = "/run/systemd/system/nexcage.service.d/50-watchdog.conf";
/// Seconds; less than the unit's own, so as not to wait as long.
const WATCHDOG: u64 = 20;
const LOG: &str = "/var/log/nexcage/nexcage.log";
const DATABASE: &str = "/var/lib/nexcage/state.db";

/// What the package puts beside program, unit and configuration.
const FILES: [&str; 9] = [
    "/usr/lib/systemd/system/nexcage.slice",
    "/usr/lib/tmpfiles.d/nexcage.conf",
    "/etc/apparmor.d/nexcage-default",
    "/etc/apparmor.d/lxc-container-nexcage",
    "/etc/logrotate.d/nexcage",
    "/usr/share/bash-completion/completions/nexcage",
    "/usr/share/man/man1/nexcage.1.gz",
    "/usr/share/man/man5/nexcage.json.5.gz",
    "/usr/share/man/man8/nexcage-daemon.8.gz",
];

#[test]
fn the_package_is_whole_and_its_units_are_understood() {
    let check = || {
        let files = process::run("dpkg", &["--listfiles", "nexcage"], PATIENCE)?.success()?;
        for file in FILES {
            ensure!(files.lines().any(|line| line == file), "no {file}");
        }
        // A node of ours has no manual pages.
        let verify = ["verify", "--man=no", "--recursive-errors=no"];
        let units = ["nexcage.service", "nexcage.slice"];
        let said = process::run(
            "systemd-analyze",
            &[&verify[..], &units].concat(),
            2 * PATIENCE,
        )?;
        ensure!(said.code == Some(0), "{said}");

        let after = property("nexcage.service", "After")?;
        for unit in [
            "zfs.target",
            "zfs-mount.service",
            "lxc.service",
            "lxc-net.service",
            "apparmor.service",
            "pve-cluster.service",
            "pve-guests.service",
        ] {
            ensure!(
                after.split(' ').any(|other| other == unit),
                "not after {unit}: {after}"
            );
        }
        for (name, value) in [
            ("Before", "kubelet.service"),
            ("Type", "notify"),
            ("Delegate", "yes"),
            ("KillMode", "process"),
        ] {
            let found = property("nexcage.service", name)?;
            ensure!(
                found.split(' ').any(|word| word == value),
                "{name} is {found}, without {value}"
            );
        }
        anyhow::Ok(())
    };
    check().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_daemon_that_hangs_is_ended_and_started_again_and_one_that_cannot_write_is_not() {
    Node::test(|node| {
        ensure!(
            property("nexcage.service", "WatchdogUSec")? == "1min",
            "the unit has no watchdog"
        );
        let counting = counting(node, "watched")?;
        // No core file: that would be a crash.
        let unit = format!("[Service]\nWatchdogSec={WATCHDOG}\nLimitCORE=0\n");
        write(DROP_IN, &unit)?;
        let played = systemctl(&["daemon-reload"])
            .and_then(|()| hang())
            .and_then(|()| lock_the_database(node));
        fs::remove_file(DROP_IN).with_context(|| format!("cannot remove {DROP_IN}"))?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["restart", "nexcage.service"])?;
        played?;
        goes_on(node, &counting)
    });
}

/// Keeps the daemon's database from being written, which no other daemon could do either. The daemon says so and goes on.
fn lock_the_database(node: &Node) -> anyhow::Result<()> {
    systemctl(&["restart", "nexcage.service"])?;
    let first = daemon()?;
    let is_ready = || {
        let info = node.crictl().json(&["info"])?;
        let conditions = info["status"]["conditions"].to_string();
        anyhow::Ok(!conditions.contains("DatabaseNotReady"))
    };
    let mut database =
        Connection::open(DATABASE).with_context(|| format!("cannot open {DATABASE}"))?;
    let locked = database
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .context("cannot lock the database")?;
    let told = wait::until_true("Status tells", PATIENCE, || Ok(!is_ready()?));
    let lives = wait::while_true("the daemon runs on", 2 * WATCHDOG, || {
        Ok(process::runs(first))
    });
    drop(locked);
    told.and(lives)?;
    wait::until_true("it can be used again", PATIENCE, is_ready)
}

/// Stops the daemon's process and waits for another.
fn hang() -> anyhow::Result<()> {
    systemctl(&["restart", "nexcage.service"])?;
    let first = daemon()?;
    let restarts = property("nexcage.service", "NRestarts")?;
    let pid = Pid::from_raw(first).context("no process")?;
    kill_process(pid, Signal::STOP).context("cannot stop the daemon")?;
    wait::until_true("systemd starts it again", 3 * PATIENCE, || {
        Ok(daemon().is_ok_and(|pid| pid != first))
    })?;
    ensure!(
        property("nexcage.service", "NRestarts")? != restarts,
        "it was not systemd"
    );
    Ok(())
}

#[test]
fn logrotate_gives_the_daemon_another_log_file() {
    Node::test(|_| {
        let before = read(CONFIG)?;
        let mut config: Value = serde_json::from_str(&before).context("the configuration")?;
        config["logging"]["file"] = LOG.into();
        write(CONFIG, &config.to_string())?;
        let rotated = rotate();
        write(CONFIG, &before)?;
        systemctl(&["restart", "nexcage.service"])?;
        fs::remove_dir_all("/var/log/nexcage").context("cannot remove the logs")?;
        rotated
    });
}

/// By logrotate, told by the package's file.
fn rotate() -> anyhow::Result<()> {
    systemctl(&["restart", "nexcage.service"])?;
    let said = read(LOG)?;
    ensure!(said.contains("serving CRI"), "no log: {said}");
    let arguments = ["--force", "/etc/logrotate.d/nexcage"];
    process::run("logrotate", &arguments, PATIENCE)?.success()?;
    wait::until_true("the log goes on", PATIENCE, || {
        Ok(read(LOG).is_ok_and(|text| text.contains("configuration reloaded")))
    })?;
    ensure!(
        !read(&format!("{LOG}.1"))?.contains("configuration reloaded"),
        "the old file is written to"
    );
    Ok(())
}

#[test]
fn removing_leaves_pods_and_purging_ends_them() {
    Node::test(|node| {
        let config = read(CONFIG)?;
        let purged = remove_and_purge(node);
        // What comes after needs the daemon, however this ended.
        write(CONFIG, &config)?;
        let arguments = ["--install", "--force-confold", "/opt/nexcage/nexcage.deb"];
        dpkg(&arguments)?;
        node.wait_until_it_serves()?;
        purged
    });
}

fn remove_and_purge(node: &Node) -> anyhow::Result<()> {
    let before = Inventory::take()?;
    let (pod, _, pid) = counting(node, "abandoned")?;
    dpkg(&["--remove", "nexcage"])?;
    ensure!(
        property("nexcage.service", "ActiveState")? == "inactive",
        "the daemon runs without its package"
    );
    ensure!(process::runs(pid), "the container ended with the package");
    node.log_grows(&pod, "counter")?;

    dpkg(&["--purge", "nexcage"])?;
    wait::until_true("the container ends", PATIENCE, || Ok(!process::runs(pid)))?;
    before.check()?;
    let left = Inventory::take()?.naming("nexcage");
    ensure!(left.is_empty(), "purging left:\n  {}", left.join("\n  "));
    for path in [
        "/etc/nexcage/config.json",
        "/etc/apparmor.d/nexcage-default",
        "/etc/apparmor.d/lxc-container-nexcage",
    ] {
        ensure!(!fs::exists(path)?, "{path} is left");
    }
    Ok(())
}

fn dpkg(arguments: &[&str]) -> anyhow::Result<()> {
    process::run("dpkg", arguments, 5 * PATIENCE)?
        .success()
        .map(drop)
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn write(path: &str, content: &str) -> anyhow::Result<()> {
    let directory = camino::Utf8Path::new(path).parent();
    directory
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, content))
        .with_context(|| format!("cannot write {path}"))
}
