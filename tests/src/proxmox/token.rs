//! The daemon's token for the API of a simulated node.

use std::fs;

use anyhow::Context as _;
use camino::Utf8Path;
use serde_json::Value;

use super::Proxmox;

/// What docs/proxmox.md tells administrators to do.
pub(super) fn make(proxmox: &Proxmox, file: &Utf8Path) -> anyhow::Result<()> {
    let (user, node) = ("nexcage@pve", "NexcageCluster");
    let commands: [&[&str]; 5] = [
        &["role", "add", "Nexcage", "--privs", "VM.Audit VM.PowerMgmt"],
        &["role", "add", node, "--privs", "Sys.Audit"],
        &["user", "add", user],
        &[
            "acl", "modify", "/vms", "--roles", "Nexcage", "--users", user,
        ],
        &[
            "acl",
            "modify",
            "/",
            "--roles",
            node,
            "--users",
            user,
            "--propagate",
            "0",
        ],
    ];
    for command in commands {
        proxmox.run("pveum", command)?.success()?;
    }
    let add = ["user", "token", "add", user, "node", "--privsep", "0"];
    let made = proxmox
        .run("pveum", &[&add[..], &["--output-format", "json"]].concat())?
        .success()?;
    let made: Value = serde_json::from_str(&made).context("pveum printed no JSON")?;
    let secret = made["value"].as_str().context("pveum printed no secret")?;
    fs::write(file, format!("{user}!node={secret}\n"))
        .and_then(|()| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(file, fs::Permissions::from_mode(0o600))
        })
        .with_context(|| format!("cannot write {file}"))
}
