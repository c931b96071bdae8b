//! What pods and containers use, read from cgroup v2 and `/proc` when asked.
//!
//! Numbers that nobody can measure on this machine are absent rather than zero: on a host whose cgroup v1
//! controllers are mounted there is no memory accounting, and the resident memory of the processes stands in.

mod cgroup;
mod network;
mod process;

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use futures_util::future::join_all;
use nexcage_image_store::{RootfsId, Usage};

pub(crate) use network::InterfaceUsage;

use crate::containers::{Container, ContainerRecord};
use crate::error::OpError;
use crate::node::now;
use crate::pods::{Pod, PodRecord};
use crate::runtime::Runtime;

/// CPU and memory of one cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CgroupUsage {
    /// When it was read, in nanoseconds since 1970.
    pub(crate) at: i64,
    /// CPU time used since it was made, in nanoseconds.
    pub(crate) cpu_ns: Option<u64>,
    pub(crate) memory: Option<MemoryUsage>,
    pub(crate) processes: Option<u64>,
    /// Pressure stall information: CPU, memory, I/O.
    pub(crate) pressure: Pressures,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemoryUsage {
    pub(crate) usage: u64,
    /// Without what the kernel can drop at once.
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
    /// Limit less working set, if there is a limit.
    pub(crate) available: Option<u64>,
    pub(crate) page_faults: Option<u64>,
    pub(crate) major_page_faults: Option<u64>,
    pub(crate) swap: Option<u64>,
    pub(crate) swap_available: Option<u64>,
}

/// Pressure stall information of one cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pressures {
    pub(crate) cpu: Option<Pressure>,
    pub(crate) memory: Option<Pressure>,
    pub(crate) io: Option<Pressure>,
}

/// One pressure file: tasks stalled, some of them and all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) some: PressureLine,
    pub(crate) full: PressureLine,
}

/// Percentages in hundredths, the total in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PressureLine {
    pub(crate) avg10: u32,
    pub(crate) avg60: u32,
    pub(crate) avg300: u32,
    pub(crate) total_ns: u64,
}

/// A container's usage.
#[derive(Debug)]
pub(crate) struct ContainerStats {
    pub(crate) record: Arc<ContainerRecord>,
    pub(crate) cgroup: CgroupUsage,
    pub(crate) writable_layer: Option<Usage>,
    /// Where the writable layer is.
    pub(crate) mountpoint: Utf8PathBuf,
}

/// A pod's usage.
#[derive(Debug)]
pub(crate) struct PodStats {
    pub(crate) record: Arc<PodRecord>,
    pub(crate) cgroup: CgroupUsage,
    pub(crate) interfaces: Vec<InterfaceUsage>,
    pub(crate) containers: Vec<ContainerStats>,
}

/// Usage of one container.
pub(crate) async fn one_container(
    runtime: &Arc<Runtime>,
    id: &str,
) -> Result<ContainerStats, OpError> {
    let container = runtime.inventory.container(id)?;
    Ok(container_stats(runtime, &container).await)
}

/// Usage of several containers, read at the same time.
pub(crate) async fn containers(
    runtime: &Arc<Runtime>,
    chosen: Vec<Arc<Container>>,
) -> Vec<ContainerStats> {
    join_all(chosen.iter().map(|c| container_stats(runtime, c))).await
}

/// Usage of one pod.
pub(crate) async fn one_pod(runtime: &Arc<Runtime>, id: &str) -> Result<PodStats, OpError> {
    let pod = runtime.inventory.pod(id)?;
    Ok(pod_stats(runtime, &pod).await)
}

/// Usage of several pods, read at the same time.
pub(crate) async fn pods(runtime: &Arc<Runtime>, chosen: Vec<Arc<Pod>>) -> Vec<PodStats> {
    join_all(chosen.iter().map(|p| pod_stats(runtime, p))).await
}

async fn container_stats(runtime: &Arc<Runtime>, container: &Arc<Container>) -> ContainerStats {
    let record = container.record();
    let dir = runtime.container_cgroup(&record).ok();
    let rootfs = RootfsId(record.id.clone());
    let (cgroup, writable_layer) =
        tokio::join!(usage(dir), runtime.images.layers().rootfs_usage(&rootfs));
    ContainerStats {
        record,
        cgroup,
        // A container that is just being removed has none any more.
        writable_layer: writable_layer.ok(),
        mountpoint: runtime.images.layers().mountpoint().to_owned(),
    }
}

async fn pod_stats(runtime: &Arc<Runtime>, pod: &Arc<Pod>) -> PodStats {
    let record = pod.record();
    let running = record.running.clone();
    let dir = running.as_ref().map(|r| r.cgroups.pod.clone());
    let init = running.map(|r| r.init);
    let network = async {
        let Some(init) = init else { return Vec::new() };
        tokio::task::spawn_blocking(move || network::interfaces(init.pid))
            .await
            .unwrap_or_default()
    };
    let inside = containers(runtime, runtime.inventory.containers_of(&record.id));
    let (cgroup, interfaces, containers) = tokio::join!(usage(dir), network, inside);
    PodStats {
        record,
        cgroup,
        interfaces,
        containers,
    }
}

/// Reads one cgroup; what cannot be read is absent.
async fn usage(dir: Option<Utf8PathBuf>) -> CgroupUsage {
    let Some(dir) = dir else {
        return CgroupUsage {
            at: now(),
            ..CgroupUsage::default()
        };
    };
    tokio::task::spawn_blocking(move || read(&dir))
        .await
        .unwrap_or_default()
}

fn read(dir: &Utf8Path) -> CgroupUsage {
    let memory = cgroup::memory(dir).or_else(|| process::memory(dir));
    CgroupUsage {
        at: now(),
        cpu_ns: cgroup::cpu_ns(dir),
        memory,
        processes: process::count(dir),
        pressure: cgroup::pressures(dir),
    }
}
