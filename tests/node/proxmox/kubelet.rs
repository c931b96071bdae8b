//! kubelet's cgroups of pods, made as its systemd driver makes them.

use std::fs;

use anyhow::Context as _;
use camino::Utf8PathBuf;
use nexcage_tests::{process, wait};

use crate::node::{PATIENCE, systemctl};

/// Above all of them.
const TOP: &str = "kubepods.slice";

/// What kubelet sets on a pod's cgroup.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes.
    pub(super) memory: Option<u64>,
    /// Microseconds of each second.
    pub(super) cpu: Option<u64>,
}

/// Makes the cgroup of a pod with this uid, and gives its path below `/sys/fs/cgroup`.
pub(super) fn make_cgroup(uid: &str, limits: Limits) -> anyhow::Result<String> {
    let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
    // A weight is always there, so that the controllers are.
    let mut properties = vec![["CPUWeight", "t", "20"], ["MemoryAccounting", "b", "true"]];
    let [memory, cpu] = [limits.memory, limits.cpu].map(|n| n.map(|n| n.to_string()));
    if let Some(bytes) = &memory {
        properties.push(["MemoryMax", "t", bytes]);
    }
    if let Some(microseconds) = &cpu {
        properties.push(["CPUQuotaPerSecUSec", "t", microseconds]);
    }
    let count = properties.len().to_string();
    let call = [
        "call",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        &slice,
        "replace",
        &count,
    ];
    let arguments = [&call[..], properties.as_flattened(), &["0"]].concat();
    process::run("busctl", &arguments, PATIENCE)?.success()?;
    let path = format!("/{TOP}/kubepods-burstable.slice/{slice}");
    let cgroup = Utf8PathBuf::from(format!("/sys/fs/cgroup{path}"));
    wait::until_true("systemd has made kubelet's cgroup", PATIENCE, || {
        let has = |file: &str, limit: Option<&str>| {
            let text = fs::read_to_string(cgroup.join(file));
            text.is_ok_and(|text| text.starts_with(limit.unwrap_or("max")))
        };
        // Quotas are of a tenth of a second.
        let quota = limits.cpu.map(|of_a_second| (of_a_second / 10).to_string());
        Ok(has("memory.max", memory.as_deref()) && has("cpu.max", quota.as_deref()))
    })
    .with_context(|| format!("{cgroup}"))?;
    Ok(path)
}

/// Removes the cgroups of all pods, which have ended.
pub(super) fn remove_cgroups() -> anyhow::Result<()> {
    systemctl(&["stop", TOP])
}
