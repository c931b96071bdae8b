//! The daemon with other settings for a while.

use std::fs;

use anyhow::Context as _;
use nexcage_tests::process;
use serde_json::Value;

use crate::Node;
use crate::node::PATIENCE;

/// The node's configuration file.
pub(crate) const CONFIG: &str = "/etc/nexcage/config.json";

/// Changes the configuration, restarts the daemon, does the work, and gives the daemon its old configuration again, however the work
/// ended. No pods may be there: they might belong to another root.
pub(crate) fn with<T>(
    node: &Node,
    change: impl FnOnce(&mut Value),
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let before = fs::read_to_string(CONFIG).with_context(|| format!("cannot read {CONFIG}"))?;
    let mut config = serde_json::from_str(&before).with_context(|| format!("in {CONFIG}"))?;
    change(&mut config);
    let done = use_config(node, &config.to_string()).and_then(|()| work());
    let emptied = node.remove_everything();
    let restored = use_config(node, &before);
    let done = done?;
    emptied?;
    restored?;
    Ok(done)
}

fn use_config(node: &Node, content: &str) -> anyhow::Result<()> {
    fs::write(CONFIG, content).with_context(|| format!("cannot write {CONFIG}"))?;
    process::run("systemctl", &["restart", "nexcage.service"], 2 * PATIENCE)?.success()?;
    node.wait_until_it_serves()
}
