//! Statistics as CRI shows them.

use nexcage_cri_api::v1;

use crate::containers::Container;
use crate::inventory::Inventory;
use crate::pods::Pod;
use crate::stats::{CgroupUsage, ContainerStats, InterfaceUsage, PodStats, Pressure, PressureLine};
use std::sync::Arc;

fn number(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

/// The containers a filter chooses. Only those that can use anything: created or running.
pub(crate) fn containers_for_stats(
    inventory: &Inventory,
    filter: v1::ContainerStatsFilter,
) -> Vec<Arc<Container>> {
    let v1::ContainerStatsFilter {
        id,
        pod_sandbox_id,
        label_selector,
    } = filter;
    let mut chosen = inventory.containers();
    chosen.retain(|c| {
        let r = c.record();
        r.phase.may_live()
            && r.id.starts_with(&id)
            && r.pod_id.starts_with(&pod_sandbox_id)
            && label_selector
                .iter()
                .all(|(k, v)| r.spec.labels.get(k) == Some(v))
    });
    chosen
}

/// The pods a filter chooses, as long as they run.
pub(crate) fn pods_for_stats(
    inventory: &Inventory,
    filter: v1::PodSandboxStatsFilter,
) -> Vec<Arc<Pod>> {
    let v1::PodSandboxStatsFilter { id, label_selector } = filter;
    let mut chosen = inventory.pods();
    chosen.retain(|p| {
        let r = p.record();
        r.phase.can_hold_containers()
            && r.id.starts_with(&id)
            && label_selector
                .iter()
                .all(|(k, v)| r.spec.labels.get(k) == Some(v))
    });
    chosen
}

/// One container's statistics.
pub(crate) fn container_stats(stats: &ContainerStats) -> v1::ContainerStats {
    let record = &stats.record;
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: record.id.clone(),
            metadata: Some(super::view::container_metadata(record)),
            labels: record.spec.labels.clone().into_iter().collect(),
            annotations: record.spec.annotations.clone().into_iter().collect(),
        }),
        cpu: cpu(&stats.cgroup),
        memory: memory(&stats.cgroup),
        writable_layer: stats
            .writable_layer
            .as_ref()
            .map(|usage| v1::FilesystemUsage {
                timestamp: stats.cgroup.at,
                fs_id: Some(v1::FilesystemIdentifier {
                    mountpoint: stats.mountpoint.to_string(),
                }),
                used_bytes: number(usage.bytes),
                inodes_used: number(usage.inodes),
            }),
        swap: swap(&stats.cgroup),
        io: io(&stats.cgroup),
    }
}

/// One pod's statistics.
pub(crate) fn pod_stats(stats: &PodStats) -> v1::PodSandboxStats {
    let record = &stats.record;
    let at = stats.cgroup.at;
    v1::PodSandboxStats {
        attributes: Some(v1::PodSandboxAttributes {
            id: record.id.clone(),
            metadata: Some(super::view::pod_metadata(record)),
            labels: record.spec.labels.clone().into_iter().collect(),
            annotations: record.spec.annotations.clone().into_iter().collect(),
        }),
        linux: Some(v1::LinuxPodSandboxStats {
            cpu: cpu(&stats.cgroup),
            memory: memory(&stats.cgroup),
            network: network(at, &stats.interfaces),
            process: stats.cgroup.processes.map(|count| v1::ProcessUsage {
                timestamp: at,
                process_count: number(count),
            }),
            containers: stats.containers.iter().map(container_stats).collect(),
            io: io(&stats.cgroup),
        }),
        windows: None,
    }
}

fn cpu(usage: &CgroupUsage) -> Option<v1::CpuUsage> {
    Some(v1::CpuUsage {
        timestamp: usage.at,
        usage_core_nano_seconds: number(usage.cpu_ns?),
        usage_nano_cores: None,
        psi: usage.pressure.cpu.as_ref().map(pressure),
    })
}

fn memory(usage: &CgroupUsage) -> Option<v1::MemoryUsage> {
    let memory = usage.memory.as_ref()?;
    Some(v1::MemoryUsage {
        timestamp: usage.at,
        working_set_bytes: number(memory.working_set),
        available_bytes: memory.available.and_then(number),
        usage_bytes: number(memory.usage),
        rss_bytes: number(memory.rss),
        page_faults: memory.page_faults.and_then(number),
        major_page_faults: memory.major_page_faults.and_then(number),
        psi: usage.pressure.memory.as_ref().map(pressure),
    })
}

fn swap(usage: &CgroupUsage) -> Option<v1::SwapUsage> {
    let memory = usage.memory.as_ref()?;
    Some(v1::SwapUsage {
        timestamp: usage.at,
        swap_available_bytes: memory.swap_available.and_then(number),
        swap_usage_bytes: number(memory.swap?),
    })
}

fn io(usage: &CgroupUsage) -> Option<v1::IoUsage> {
    let psi = usage.pressure.io.as_ref().map(pressure)?;
    Some(v1::IoUsage {
        timestamp: usage.at,
        psi: Some(psi),
    })
}

fn network(at: i64, interfaces: &[InterfaceUsage]) -> Option<v1::NetworkUsage> {
    let all: Vec<_> = interfaces.iter().map(interface).collect();
    let default = all
        .iter()
        .find(|i| i.name == "eth0")
        .or(all.first())?
        .clone();
    Some(v1::NetworkUsage {
        timestamp: at,
        default_interface: Some(default),
        interfaces: all,
    })
}

fn interface(usage: &InterfaceUsage) -> v1::NetworkInterfaceUsage {
    v1::NetworkInterfaceUsage {
        name: usage.name.clone(),
        rx_bytes: number(usage.rx_bytes),
        rx_errors: number(usage.rx_errors),
        tx_bytes: number(usage.tx_bytes),
        tx_errors: number(usage.tx_errors),
    }
}

fn pressure(pressure: &Pressure) -> v1::PsiStats {
    v1::PsiStats {
        full: Some(line(pressure.full)),
        some: Some(line(pressure.some)),
    }
}

fn line(line: PressureLine) -> v1::PsiData {
    let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
    v1::PsiData {
        total: line.total_ns,
        avg10: percent(line.avg10),
        avg60: percent(line.avg60),
        avg300: percent(line.avg300),
    }
}
