//! The package is upgraded under a pod.

use anyhow::ensure;
use nexcage_tests::process;

use crate::Node;
use crate::node::{PATIENCE, daemon};
use crate::systemd::{counting, goes_on};

#[test]
fn pods_outlive_an_upgrade() {
    Node::test(|node| {
        let counting = counting(node, "upgraded")?;
        let before = (version()?, daemon()?);
        let arguments = ["--install", "--force-confold", "/opt/nexcage/upgrade.deb"];
        process::run("dpkg", &arguments, 5 * PATIENCE)?.success()?;
        let after = (version()?, daemon()?);
        ensure!(
            before.0 != after.0 && before.1 != after.1,
            "nothing was upgraded: {before:?}, {after:?}"
        );
        goes_on(node, &counting)
    });
}

fn version() -> anyhow::Result<String> {
    let arguments = ["--show", "--showformat=${Version}", "nexcage"];
    process::run("dpkg-query", &arguments, PATIENCE)?.success()
}
