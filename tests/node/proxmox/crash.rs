//! The daemon dies under pods that are Proxmox's containers, and an administrator does not wait for it.

use anyhow::{Context as _, ensure};
use nexcage_tests::{process, spec, wait};

use super::site::Site;
use crate::node::{PATIENCE, daemon, systemctl};
use crate::systemd::{counting, goes_on};

/// It is killed; then it is away while the container is stopped.
pub(super) fn pods_outlive_the_daemon(site: &Site<'_>) -> anyhow::Result<()> {
    let node = site.node;
    let counting = counting(node, "survivor")?;
    let (pod, container, pid) = &counting;
    let ct = site.ct(pod)?;
    let first = daemon()?;
    // Everything in the daemon's own cgroup, where nothing of a pod may be.
    systemctl(&["kill", "--signal=KILL", "nexcage.service"])?;
    wait::until_true("systemd starts it again", 2 * PATIENCE, || {
        Ok(daemon().is_ok_and(|pid| pid != first))
    })?;
    goes_on(node, &counting)?;
    let now = site.ct(pod)?;
    ensure!(now == ct, "{ct:?} became {now:?}");
    site.pct_lists(&[(ct.vmid, "survivor")])?;
    let later = node.start(pod, &spec::shell("later", "exit 3"))?;
    let code = site.exits(&later)?;
    ensure!(code == 3, "a container exited with {code}");

    systemctl(&["stop", "nexcage.service"])?;
    let stopped = stop_in_its_absence(site, ct.vmid, &[ct.init, *pid]);
    systemctl(&["start", "nexcage.service"])?;
    node.wait_until_it_serves()?;
    stopped?;
    site.ends(pod, container)?;
    let rows = site.listed()?;
    let row = rows.get("survivor").context("it is not listed")?;
    ensure!(
        row["state"] == "not_ready" && row["ended"].is_string(),
        "nexcage lists {row}"
    );
    // It is Proxmox's until kubelet has its pod removed.
    let status = site.proxmox.pct(&["status", &ct.vmid.to_string()])?;
    ensure!(status.trim() == "status: stopped", "{status}");
    node.crictl().run(&["rmp", &pod.id])?;
    ensure!(!site.proxmox.conf(ct.vmid).exists(), "{} is left", ct.vmid);
    Ok(())
}

/// What ends the pod's processes needs no daemon.
fn stop_in_its_absence(site: &Site<'_>, vmid: u32, pids: &[i32]) -> anyhow::Result<()> {
    site.proxmox.pct(&["stop", &vmid.to_string()])?;
    wait::until_true("all processes of the pod end", PATIENCE, || {
        Ok(!pids.iter().any(|pid| process::runs(*pid)))
    })
}
