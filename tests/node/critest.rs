//! critest in full.

use std::fs;

use anyhow::Context as _;
use camino::Utf8Path;
use nexcage_tests::critest::{self, Critest};
use nexcage_tests::known_failures::KnownFailures;
use serde_json::json;

use crate::{Node, settings};

/// Its reports, for those who read them afterwards.
const REPORTS: &str = "/var/log/critest";

/// The daemon's data while it is on overlay.
const OVERLAY_ROOT: &str = "/var/lib/nexcage-overlay";

#[test]
fn every_spec_ends_as_expected_on_zfs() {
    Node::test(|node| {
        play("zfs")?;
        node.remove_everything()
    });
}

#[test]
fn every_spec_ends_as_expected_on_overlay() {
    Node::test(|node| {
        node.remove_everything()?;
        let overlay = json!({ "driver": "overlay", "root": OVERLAY_ROOT });
        let played = settings::with(
            node,
            |config| config["storage"] = overlay,
            || play("overlay"),
        );
        let removed = fs::remove_dir_all(OVERLAY_ROOT);
        played?;
        removed.with_context(|| format!("cannot remove {OVERLAY_ROOT}"))?;
        // As the test was given it.
        node.pull()
    });
}

fn play(storage: &str) -> anyhow::Result<()> {
    let known = KnownFailures::parse(include_str!("../known-failures.txt"))?;
    let directory = Utf8Path::new(REPORTS).join(storage);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {directory}"))?;
    let parallel = match std::env::var("NEXCAGE_TEST_PARALLEL") {
        Ok(text) => text.parse().context("NEXCAGE_TEST_PARALLEL")?,
        Err(_) => 1,
    };
    let specs = Critest {
        socket: Node::socket(),
        directory: &directory,
        parallel,
        seconds: 40 * 60,
    }
    .run()?;
    critest::judge(&specs, &known)
}
