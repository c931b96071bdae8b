//! Pods as containers of a simulated Proxmox node, with what only a whole node has: systemd's scopes, limits, usage, AppArmor.
//!
//! Making a node a Proxmox node and a node again takes as long as a few pods, so that a test has several subjects: functions that
//! are given a [`Site`] without pods. All of them are tried, also after one has failed.

mod churn;
mod commands;
mod containers;
mod crash;
mod host;
mod kubelet;
mod limits;
mod place;
mod site;
mod usage;

use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::{Node, critest};
use site::Site;

/// What is tried, by name.
type Subject = (&'static str, fn(&Site<'_>) -> anyhow::Result<()>);

#[test]
fn pods_that_nexcage_starts() {
    play(
        "direct",
        &[
            ("usage", usage::is_the_same_for_all),
            ("limits", limits::are_set_and_shown),
            ("edits", limits::edits_are_reported),
            ("host", host::pods_are_containers),
            ("containers", containers::come_and_go),
            ("crash", crash::pods_outlive_the_daemon),
        ],
    );
}

/// With what might be otherwise because Proxmox writes the LXC configuration and starts it in a unit of its own.
#[test]
fn pods_that_proxmox_starts() {
    play(
        "api",
        &[
            ("limits", limits::are_set_and_shown),
            ("host", host::pods_are_containers),
        ],
    );
}

#[test]
#[ignore = "cargo xtask test node --full"]
fn the_rest_of_pods_that_proxmox_starts() {
    play(
        "api",
        &[
            ("usage", usage::is_the_same_for_all),
            ("edits", limits::edits_are_reported),
            ("containers", containers::come_and_go),
            ("crash", crash::pods_outlive_the_daemon),
        ],
    );
}

#[test]
#[ignore = "cargo xtask test node --full"]
fn an_administrator_plays_with_pods_that_nexcage_starts() {
    churn::play("direct");
}

#[test]
#[ignore = "cargo xtask test node --full"]
fn an_administrator_plays_with_pods_that_proxmox_starts() {
    churn::play("api");
}

/// The same results as with plain LXC. Takes as long as all that comes before.
#[test]
#[ignore = "cargo xtask test node --full"]
fn critest_ends_as_expected_started_directly() {
    Node::test(|node| place::with(node, "direct", |_| critest::play("proxmox-direct")));
}

#[test]
#[ignore = "cargo xtask test node --full"]
fn critest_ends_as_expected_started_by_proxmox() {
    Node::test(|node| place::with(node, "api", |_| critest::play("proxmox-api")));
}

/// Tries all subjects on one site, and fails with all that failed.
fn play(start: &str, subjects: &[Subject]) {
    Node::test(|node| {
        place::with(node, start, |site| {
            let mut failed = Vec::new();
            for (name, subject) in subjects {
                let begun = Instant::now();
                let played = subject(site).and_then(|()| leaves_nothing(site));
                let verdict = if played.is_ok() { "well" } else { "FAILED" };
                println!("{start}, {name}: {verdict} after {:.0?}", begun.elapsed());
                if let Err(error) = played {
                    failed.push(format!("{name}: {error:#}"));
                    node.remove_pods().with_context(|| failed.join("\n"))?;
                }
            }
            ensure!(failed.is_empty(), "{}", failed.join("\n"));
            Ok(())
        })
    });
}

/// The next subject finds no pods, and no containers of any.
fn leaves_nothing(site: &Site<'_>) -> anyhow::Result<()> {
    site.node.remove_pods()?;
    let numbers = site.proxmox.numbers()?;
    ensure!(numbers.is_empty(), "containers are left: {numbers:?}");
    Ok(())
}
