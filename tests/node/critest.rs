//! critest in full.

use std::fs;

use anyhow::Context as _;
use camino::Utf8Path;
use nexcage_tests::critest::{self, Critest, Spec};
use nexcage_tests::known_failures::KnownFailures;
use serde_json::json;

use crate::node::systemctl;
use crate::{Node, settings};

/// Its reports, for those who read them afterwards.
const REPORTS: &str = "/var/log/critest";

/// Where the kernel shows AppArmor.
const APPARMOR: &str = "/sys/kernel/security/apparmor";

/// The daemon's data while it is on overlay.
const OVERLAY_ROOT: &str = "/var/lib/nexcage-overlay";

/// What only a machine like the node can do: words of names of specs, and how many there are.
const NODE_SPECS: &[(&str, usize)] = &[
    ("[k8s.io] AppArmor ", 9),
    ("[k8s.io] Container OOM ", 1),
    ("UserNamespaces", 6),
    ("support sysctls", 2),
    ("recursive readonly mount", 4),
];

#[test]
fn every_spec_ends_as_expected_on_zfs() {
    Node::test(|node| {
        play_all("zfs")?;
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
            || play_all("overlay"),
        );
        let removed = fs::remove_dir_all(OVERLAY_ROOT);
        played?;
        removed.with_context(|| format!("cannot remove {OVERLAY_ROOT}"))
    });
}

/// Runs all of it and judges it. Its reports are kept by this name.
pub(crate) fn play(name: &str) -> anyhow::Result<()> {
    run(name).map(drop)
}

/// The same; and nothing that the node is for was skipped.
fn play_all(name: &str) -> anyhow::Result<()> {
    critest::ensure_passed(&run(name)?, NODE_SPECS)
}

fn run(name: &str) -> anyhow::Result<Vec<Spec>> {
    let known = KnownFailures::parse(include_str!("../known-failures.txt"))?;
    let directory = Utf8Path::new(REPORTS).join(name);
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
    .run();
    tidy()?;
    let specs = specs?;
    critest::judge(&specs, &known)?;
    Ok(specs)
}

/// Removes what critest itself makes and leaves.
fn tidy() -> anyhow::Result<()> {
    let profiles = fs::read_to_string(format!("{APPARMOR}/profiles"))
        .context("cannot read which AppArmor profiles there are")?;
    // `name (mode)` each.
    let names = profiles.lines().filter_map(|line| line.split(' ').next());
    for name in names.filter(|name| name.starts_with("cri-validate-apparmor-")) {
        fs::write(format!("{APPARMOR}/.remove"), name)
            .with_context(|| format!("cannot remove the AppArmor profile {name}"))?;
    }
    // The parent that some of its pods name, as kubelet does.
    systemctl(&["stop", "test.slice"])
}
