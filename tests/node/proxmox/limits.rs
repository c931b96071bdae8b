//! A pod's limits: on its cgroup, in the configuration of its container, and in what Proxmox shows of that.

use std::fs;

use anyhow::{Context as _, ensure};
use nexcage_cri_api::v1::LinuxContainerResources;
use nexcage_tests::{Pod, process, spec, wait};
use serde_json::{Value, json};

use super::commands::doctor_says;
use super::kubelet::{self, make_cgroup};
use super::site::{Ct, MIB, Site};
use crate::node::PATIENCE;

/// Control files of a pod's limits, and of one that only Proxmox knows.
const FILES: [&str; 5] = [
    "memory.max",
    "memory.high",
    "memory.swap.max",
    "cpu.max",
    "cpu.weight",
];

/// What a container's limits shall be.
struct Limits {
    memory_mib: u64,
    swap_mib: u64,
    /// `cores` and `cpulimit`.
    cpus: Option<[&'static str; 2]>,
    /// `cpuunits`.
    units: &'static str,
    /// Contents of [`FILES`] in the container's cgroup.
    files: [&'static str; 5],
}

/// A pod with limits, and one of which only some containers have any; changes of both the pod's and a container's.
pub(super) fn are_set_and_shown(site: &Site<'_>) -> anyhow::Result<()> {
    let played = limited(site).and_then(|()| limited_in_part(site));
    let emptied = site.node.remove_pods();
    let removed = emptied.and_then(|()| kubelet::remove_cgroups());
    played?;
    removed
}

/// All containers of the pod have limits, so kubelet limits its own cgroup, too.
fn limited(site: &Site<'_>) -> anyhow::Result<()> {
    let kubelets = kubelet::Limits {
        memory: Some(256 * MIB),
        cpu: Some(1_500_000),
    };
    let resources = json!({
        "memory_limit_in_bytes": 256 * MIB, "memory_swap_limit_in_bytes": 320 * MIB,
        "cpu_quota": 150_000, "cpu_period": 100_000, "cpu_shares": 1536,
    });
    let pod = run_below_kubelet(site, "limited", kubelets, &resources)?;
    let mut config = spec::shell("counter", spec::COUNT);
    config["linux"]["resources"] =
        json!({ "memory_limit_in_bytes": 192 * MIB, "cpu_quota": 100_000, "cpu_period": 100_000 });
    let container = site.node.start(&pod, &config)?;
    let ct = site.ct(&pod)?;
    let first = Limits {
        memory_mib: 256,
        swap_mib: 64,
        cpus: Some(["2", "1.5"]),
        units: "59",
        files: ["268435456", "max", "67108864", "150000 100000", "59"],
    };
    check(site, &ct, &first).context("as it was made")?;

    // A pod is resized in place.
    let smaller = LinuxContainerResources {
        memory_limit_in_bytes: 128 << 20,
        memory_swap_limit_in_bytes: 128 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpu_shares: 102,
        ..Default::default()
    };
    site.update_pod(&pod, smaller)?;
    let second = Limits {
        memory_mib: 128,
        swap_mib: 0,
        cpus: Some(["1", "0.5"]),
        units: "4",
        files: ["134217728", "max", "0", "50000 100000", "4"],
    };
    check(site, &ct, &second).context("made smaller")?;

    // One of its containers: that is none of Proxmox's business.
    let of_container = LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_quota: 20_000,
        cpu_period: 100_000,
        ..Default::default()
    };
    site.update_container(&container, of_container)?;
    let cgroup = ct.cgroup.join(&container);
    for (file, expected) in [("memory.max", "67108864"), ("cpu.max", "20000 100000")] {
        let found = read(&cgroup, file)?;
        ensure!(found == expected, "{cgroup}/{file} is {found}");
    }
    check(site, &ct, &second).context("with another limit of its container")?;

    let unlimited = LinuxContainerResources {
        memory_limit_in_bytes: -1,
        memory_swap_limit_in_bytes: -1,
        cpu_quota: -1,
        ..Default::default()
    };
    site.update_pod(&pod, unlimited)?;
    let third = Limits {
        units: "4",
        files: ["max", "max", "max", "max 100000", "4"],
        ..Limits::of_node()?
    };
    check(site, &ct, &third).context("made unlimited")?;
    ensure!(site.ct(&pod)? == ct, "it is another container");
    let status = site.node.status(&container)?;
    ensure!(status["state"] == "CONTAINER_RUNNING", "{status}");
    Ok(())
}

/// What a client sends is a sum over containers with limits, and kubelet limits nothing.
fn limited_in_part(site: &Site<'_>) -> anyhow::Result<()> {
    let kubelets = kubelet::Limits {
        memory: None,
        cpu: None,
    };
    let sum = json!({
        "memory_limit_in_bytes": 100 * MIB, "cpu_quota": 20_000, "cpu_period": 100_000, "cpu_shares": 512,
    });
    let pod = run_below_kubelet(site, "limited-in-part", kubelets, &sum)?;
    let unlimited = Limits {
        units: "20",
        files: ["max", "max", "max", "max 100000", "20"],
        ..Limits::of_node()?
    };
    check(site, &site.ct(&pod)?, &unlimited)
}

/// What an administrator changes is told, and neither undone nor believed; the pod's next limits are in effect again.
pub(super) fn edits_are_reported(site: &Site<'_>) -> anyhow::Result<()> {
    let resources = json!({
        "memory_limit_in_bytes": 256 * MIB, "cpu_quota": 50_000, "cpu_period": 100_000, "cpu_shares": 512,
    });
    let pod = site.node.run_pod_with("edited", |config| {
        config["linux"]["resources"] = resources;
    })?;
    let ct = site.ct(&pod)?;
    let set = |memory_mib, cpus, files| {
        anyhow::Ok(Limits {
            memory_mib,
            cpus: Some(cpus),
            units: "20",
            files,
            ..Limits::of_node()?
        })
    };
    let ours = ["268435456", "max", "max", "50000 100000", "20"];
    check(site, &ct, &set(256, ["1", "0.5"], ours)?).context("as it was made")?;

    let vmid = ct.vmid.to_string();
    let edit = ["set", &vmid, "--memory", "300", "--cpulimit", "1"];
    site.proxmox.pct(&edit)?;
    // Proxmox slows it down when it has nearly all of its memory.
    let theirs = set(
        300,
        ["1", "1"],
        ["314572800", "312115200", "max", "100000 100000", "20"],
    )?;
    check(site, &ct, &theirs).context("as Proxmox has it")?;
    wait::until_true("the edit is reported", PATIENCE, || {
        Ok(edits(&site.inspect(&pod)?["info"]) == ["cpulimit 0.5 1", "memory 256 300"])
    })?;
    let inspected = site.inspect(&pod)?;
    let believed = inspected["info"]["resources"]["memory_bytes"] != 256 * MIB;
    ensure!(
        !believed && inspected["status"]["state"] == "SANDBOX_READY",
        "{inspected}"
    );
    let listed = site.listed()?;
    let row = listed.get("edited").context("it is not listed")?;
    ensure!(
        edits(row) == ["cpulimit 0.5 1", "memory 256 300"],
        "nexcage lists {row}"
    );
    let warning = format!(
        "the container {vmid} of pod nxt/edited: cpulimit is 1 and was made 0.5, memory is 300 and was made 256"
    );
    doctor_says(1, &[("edits", &warning)])?;
    check(site, &ct, &theirs).context("it was undone")?;

    site.update_pod(
        &pod,
        LinuxContainerResources {
            memory_limit_in_bytes: 200 << 20,
            ..Default::default()
        },
    )?;
    let ours = ["209715200", "max", "max", "50000 100000", "20"];
    check(site, &ct, &set(200, ["1", "0.5"], ours)?).context("after the pod's limits changed")?;
    wait::until_true("no edit is reported any more", PATIENCE, || {
        Ok(edits(&site.inspect(&pod)?["info"]).is_empty())
    })?;
    told_once(&vmid)
}

/// Both keys, each in one line of the log, however often the daemon has looked.
fn told_once(vmid: &str) -> anyhow::Result<()> {
    let unit = ["--unit", "nexcage", "--since=-10min"];
    let arguments = [&unit[..], &["--output", "cat", "--no-pager"]].concat();
    let log = process::run("journalctl", &arguments, PATIENCE)?.success()?;
    let told = log
        .lines()
        .filter(|line| line.contains("somebody else changed") && line.contains(vmid));
    let told: Vec<_> = told.collect();
    ensure!(told.len() == 2, "not one line for each key: {told:#?}");
    Ok(())
}

/// Keys that were edited, with what they were and are.
fn edits(of: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let edits = of["edits"].as_array().into_iter().flatten();
    edits
        .map(|edit| {
            let [key, ours, theirs] = ["key", "ours", "theirs"].map(|name| text(&edit[name]));
            format!("{key} {ours} {theirs}")
        })
        .collect()
}

/// Runs a pod whose client is kubelet.
fn run_below_kubelet(
    site: &Site<'_>,
    name: &str,
    limits: kubelet::Limits,
    resources: &Value,
) -> anyhow::Result<Pod> {
    let parent = make_cgroup(&format!("uid-{name}"), limits)?;
    let pod = site.node.run_pod_with(name, |config| {
        config["linux"]["cgroup_parent"] = parent.as_str().into();
        config["linux"]["resources"] = resources.clone();
    })?;
    let cgroup = site.ct(&pod)?.cgroup;
    ensure!(
        cgroup.starts_with(format!("/sys/fs/cgroup{parent}")),
        "it is not in kubelet's cgroup, but in {cgroup}"
    );
    Ok(pod)
}

impl Limits {
    /// Of a container that may have all the node has. What is not the same on all nodes is left to the caller.
    fn of_node() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        let mib = |name: &str| -> Option<u64> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
        };
        Ok(Self {
            memory_mib: mib("MemTotal:").context("no MemTotal")?,
            swap_mib: mib("SwapTotal:").context("no SwapTotal")?,
            cpus: None,
            units: "",
            files: [""; 5],
        })
    }
}

/// Fails unless the configuration, what Proxmox shows and the cgroup say the same.
fn check(site: &Site<'_>, ct: &Ct, limits: &Limits) -> anyhow::Result<()> {
    let Limits {
        memory_mib,
        swap_mib,
        cpus,
        units,
        files,
    } = limits;
    let conf = site.conf(ct.vmid)?;
    let has = |key: &str| conf.get(key).map(String::as_str);
    let found = ["memory", "swap", "cores", "cpulimit", "cpuunits"].map(has);
    let [cores, cpulimit] = [0, 1].map(|n| cpus.map(|cpus| cpus[n]));
    let (memory, swap) = (memory_mib.to_string(), swap_mib.to_string());
    let expected = [Some(&*memory), Some(&*swap), cores, cpulimit, Some(*units)];
    ensure!(
        found == expected,
        "the configuration has {found:?}, not {expected:?}"
    );

    for (file, expected) in FILES.iter().zip(files) {
        let found = read(&ct.cgroup, file)?;
        ensure!(
            found == *expected,
            "{}/{file} is {found}, not {expected}",
            ct.cgroup
        );
    }

    let shown = site.status(ct.vmid)?;
    let all = std::thread::available_parallelism()?.get().to_string();
    ensure!(
        shown.running
            && shown.max_memory_bytes == memory_mib * MIB
            && shown.cpus.to_string() == cores.unwrap_or(&all),
        "Proxmox shows {shown:?}"
    );
    Ok(())
}

fn read(cgroup: &camino::Utf8Path, file: &str) -> anyhow::Result<String> {
    let path = cgroup.join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}
