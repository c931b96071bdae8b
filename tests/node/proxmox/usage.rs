//! What a pod uses: the same for Proxmox, kubelet and `nexcage list`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nexcage_tests::spec;
use serde_json::{Value, json};

use super::site::{MIB, Site, is_near};

/// What the container takes.
const TAKEN: u64 = 200 * MIB;

/// A container that takes 200 MiB of anonymous memory and one CPU.
pub(super) fn is_the_same_for_all(site: &Site<'_>) -> anyhow::Result<()> {
    let node = site.node;
    let pod = node.run_pod_with("hungry", |config| {
        config["linux"]["resources"] =
            json!({ "memory_limit_in_bytes": 512 * MIB, "cpu_quota": 150_000, "cpu_period": 100_000 });
    })?;
    let command = format!("exec dd if=/dev/zero of=/dev/null bs={TAKEN}");
    node.start(&pod, &spec::shell("hungry", &command))?;
    let vmid = site.ct(&pod)?.vmid;

    let shown = site.status_after(vmid, Duration::from_secs(10))?;
    ensure!(shown.running, "Proxmox shows it stopped");
    let memory = is_near(shown.memory_bytes, TAKEN) && shown.max_memory_bytes == 512 * MIB;
    ensure!(memory, "Proxmox shows {shown:?}");
    let cpus = shown.cpu;
    ensure!(
        (0.7..1.2).contains(&cpus),
        "Proxmox shows {cpus} CPUs: {shown:?}"
    );

    let stats = node
        .crictl()
        .json(&["statsp", "-o", "json", "--id", &pod.id])?;
    let linux = &stats["stats"][0]["linux"];
    let number = |value: &Value| value["value"].as_str().and_then(|v| v.parse::<u64>().ok());
    let working_set = number(&linux["memory"]["workingSetBytes"])
        .with_context(|| format!("no memory in {stats}"))?;
    ensure!(
        is_near(working_set, TAKEN),
        "kubelet sees {working_set} bytes"
    );
    let cores = number(&linux["cpu"]["usageCoreNanoSeconds"]).context("no CPU time")?;
    ensure!(cores > 5_000_000_000, "kubelet sees {cores} ns of CPU");

    let listed = site.listed()?;
    let row = listed
        .get("hungry")
        .with_context(|| format!("not listed: {listed:?}"))?;
    let memory = row["memory_bytes"].as_u64().unwrap_or_default();
    // Of one second, in which the list takes its share of the CPUs, too.
    let percent = row["cpu_percent"].as_f64().unwrap_or_default();
    ensure!(
        is_near(memory, TAKEN) && (40.0..140.0).contains(&percent),
        "nexcage lists {row}"
    );
    Ok(())
}
