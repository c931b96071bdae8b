//! Making the node a Proxmox node for a while.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use camino::Utf8Path;
use nexcage_tests::{Place, Proxmox, process};

use super::site::Site;
use crate::node::{PATIENCE, systemctl};
use crate::{Node, settings};

/// How often the daemon looks at what others made of its containers, so that nobody waits half a minute for it.
const HASTE: &str = "NEXCAGE_INTERVAL_MS";
const MILLISECONDS: u32 = 5000;

/// Makes the node a Proxmox node whose pods are its containers, does the work, and takes everything back.
pub(super) fn with(
    node: &Node,
    start: &str,
    work: impl FnOnce(&Site<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let package = install_package()?;
    give_ids_to_root()?;
    let proxmox = Proxmox::start_in(Place {
        directory: "/var/lib/proxmox-sim".into(),
        mount: "/etc/pve".into(),
        lxc_path: "/var/lib/lxc".into(),
    })?;
    let sections = proxmox.config(start)?;
    systemctl(&["set-environment", &format!("{HASTE}={MILLISECONDS}")])?;
    let done = settings::with(
        node,
        |config| {
            for (key, value) in sections.as_object().into_iter().flatten() {
                config[key] = value.clone();
            }
        },
        || {
            // For this daemon alone, not for those that come after it.
            systemctl(&["unset-environment", HASTE])?;
            node.pull()?;
            work(&Site::new(node, &proxmox)?)
        },
    );
    // If it did not come so far.
    systemctl(&["unset-environment", HASTE])?;
    drop(proxmox);
    fs::remove_dir_all("/var/lib/proxmox-sim").context("cannot remove the simulator's files")?;
    process::run("dpkg", &["--purge", package], PATIENCE)?.success()?;
    done
}

/// The package by whose version nexcage knows what Proxmox can do. Gives its name.
fn install_package() -> anyhow::Result<&'static str> {
    const NAME: &str = "pve-container";
    let tree = Utf8Path::new("/run/pve-container");
    let control = "Package: pve-container\nVersion: 6.1.10\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n\
        Description: stands for the simulator\n";
    fs::create_dir_all(tree.join("DEBIAN"))
        .and_then(|()| fs::write(tree.join("DEBIAN/control"), control))
        .with_context(|| format!("cannot write {tree}"))?;
    let file = "/run/pve-container.deb";
    process::run("dpkg-deb", &["--build", tree.as_str(), file], PATIENCE)?.success()?;
    process::run("dpkg", &["--install", file], PATIENCE)?.success()?;
    Ok(NAME)
}

/// Started by Proxmox, LXC maps ids by newuidmap, and those alone that root was given: by lxc-pve those of ordinary pods, and by
/// whoever wants `hostUsers: false` those that kubelet gives to pods, or critest.
fn give_ids_to_root() -> anyhow::Result<()> {
    for file in [Path::new("/etc/subuid"), Path::new("/etc/subgid")] {
        let mut text = fs::read_to_string(file).unwrap_or_default();
        for line in ["root:100000:65536", "root:65536:65536", "root:1000:100000"] {
            if !text.lines().any(|known| known == line) {
                text.push_str(line);
                text.push('\n');
            }
        }
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
