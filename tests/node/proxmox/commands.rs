//! nexcage's own commands: what they say of pods that are Proxmox's containers.

use anyhow::{Context as _, ensure};
use nexcage_tests::{process, wait};
use serde::Deserialize;
use serde_json::Value;

use super::site::{Ct, Site, is_near};
use crate::node::{PATIENCE, nexcage};

/// What the doctor looks at on every Proxmox node. `edits` is there only if there are some.
const CHECKS: [&str; 17] = [
    "configuration",
    "rights",
    "cgroups",
    "apparmor",
    "seccomp",
    "programs",
    "lxc",
    "storage",
    "network",
    "proxmox packages",
    "proxmox cluster",
    "proxmox pods",
    "proxmox api",
    "vmids",
    "backups",
    "daemon",
    "leftovers",
];

/// A pod that is to be listed.
pub(super) struct Listed<'a> {
    pub(super) name: &'a str,
    pub(super) ct: &'a Ct,
    /// Bytes that it uses at least.
    pub(super) memory: u64,
    /// Whether it has a network of its own.
    pub(super) has_network: bool,
}

/// Fails unless `nexcage list --runtime lxc` has these pods and no others, all of them running, and says of them what is so.
pub(super) fn list_has(site: &Site<'_>, pods: &[Listed<'_>]) -> anyhow::Result<()> {
    let rows = site.listed()?;
    ensure!(rows.len() == pods.len(), "not all of them: {rows:?}");
    for pod in pods {
        let row = rows
            .get(pod.name)
            .with_context(|| format!("{} is not listed: {rows:?}", pod.name))?;
        let Ct { vmid, init, .. } = pod.ct;
        let number = row["container"].as_str().and_then(|n| n.parse().ok());
        let is_so = row["backend"] == "proxmox"
            && number == Some(*vmid)
            && row["pid"] == *init
            && row["state"] == "ready"
            && row["cpu_percent"].is_f64()
            && row["edits"].as_array().is_some_and(Vec::is_empty)
            && row["ended"].is_null();
        ensure!(is_so, "{} is {:?} and listed as {row}", pod.name, pod.ct);
        let memory = row["memory_bytes"].as_u64().unwrap_or_default();
        ensure!(
            is_near(memory, pod.memory),
            "{}: {memory} bytes are listed",
            pod.name
        );
        let addresses = match pod.has_network {
            true => addresses(*init)?,
            false => Vec::new(),
        };
        ensure!(
            row["ips"].as_array().is_some_and(|ips| *ips == addresses),
            "{} has {addresses:?} and is listed as {row}",
            pod.name
        );
    }
    Ok(())
}

/// IPv4 addresses in the network namespace of a process, but for the loopback's.
fn addresses(pid: i32) -> anyhow::Result<Vec<Value>> {
    let namespace = format!("--net=/proc/{pid}/ns/net");
    let ip = ["ip", "-4", "-json", "address", "show", "scope", "global"];
    let text = process::run("nsenter", &[&[&*namespace], &ip[..]].concat(), PATIENCE)?.success()?;
    let interfaces: Value = serde_json::from_str(&text).context("ip printed no JSON")?;
    let interfaces = interfaces.as_array().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| interface["addr_info"].as_array());
    Ok(addresses
        .flatten()
        .map(|address| address["local"].clone())
        .collect())
}

/// Fails unless the doctor finds all as it should be on a node with so many pods, but for these warnings.
pub(super) fn doctor_says(pods: usize, warnings: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut last = String::new();
    // Where each program takes its time, Proxmox may take too long for the daemon while the doctor asks all others, too.
    let content = wait::until_true("the doctor is content", PATIENCE, || {
        let output = nexcage(&["doctor", "--output", "json"])?;
        let report: Vec<Finding> = serde_json::from_str(&output.stdout)
            .with_context(|| format!("the doctor printed no JSON: {output}"))?;
        last = output.to_string();
        Ok(output.code == Some(0) && is_as_expected(&report, pods, warnings))
    });
    content.with_context(|| format!("not {pods} pods and {warnings:?} alone: {last}"))
}

/// One line of the doctor's.
#[derive(Debug, Deserialize)]
struct Finding {
    check: String,
    state: String,
    reason: String,
}

fn is_as_expected(report: &[Finding], pods: usize, warnings: &[(&str, &str)]) -> bool {
    let (good, others): (Vec<_>, Vec<_>) = report.iter().partition(|line| line.state == "ok");
    let warned = others
        .iter()
        .map(|line| (&*line.check, &*line.state, &*line.reason));
    let expected = warnings
        .iter()
        .map(|(check, reason)| (*check, "warning", *reason));
    let says = |check: &str, words: &str| {
        let mut lines = good.iter().filter(|line| line.check == check);
        lines.any(|line| line.reason.contains(words))
    };
    good.iter().map(|line| line.check.as_str()).eq(CHECKS)
        && warned.eq(expected)
        && says("proxmox packages", "pve-container 6.1.10")
        && says("vmids", &format!("pods have {pods}"))
        && says("daemon", &format!("has {pods} pods"))
}
