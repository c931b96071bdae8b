//! Statistics.

use std::sync::Arc;

use nexcage_cri_api::v1;

use crate::cri::convert;
use crate::error::OpError;
use crate::runtime::Runtime;
use crate::stats;

pub(super) async fn container(
    runtime: &Arc<Runtime>,
    request: v1::ContainerStatsRequest,
) -> Result<v1::ContainerStatsResponse, OpError> {
    let v1::ContainerStatsRequest { container_id } = request;
    let stats = stats::one_container(runtime, &container_id).await?;
    Ok(v1::ContainerStatsResponse {
        stats: Some(convert::container_stats(&stats)),
    })
}

pub(super) async fn containers(
    runtime: &Arc<Runtime>,
    request: v1::ListContainerStatsRequest,
) -> v1::ListContainerStatsResponse {
    let v1::ListContainerStatsRequest { filter } = request;
    let chosen = convert::containers_for_stats(&runtime.inventory, filter.unwrap_or_default());
    let stats = stats::containers(runtime, chosen).await;
    v1::ListContainerStatsResponse {
        stats: stats.iter().map(convert::container_stats).collect(),
    }
}

pub(super) async fn pod(
    runtime: &Arc<Runtime>,
    request: v1::PodSandboxStatsRequest,
) -> Result<v1::PodSandboxStatsResponse, OpError> {
    let v1::PodSandboxStatsRequest { pod_sandbox_id } = request;
    let stats = stats::one_pod(runtime, &pod_sandbox_id).await?;
    Ok(v1::PodSandboxStatsResponse {
        stats: Some(convert::pod_stats(&stats)),
    })
}

pub(super) async fn pods(
    runtime: &Arc<Runtime>,
    request: v1::ListPodSandboxStatsRequest,
) -> v1::ListPodSandboxStatsResponse {
    let v1::ListPodSandboxStatsRequest { filter } = request;
    let chosen = convert::pods_for_stats(&runtime.inventory, filter.unwrap_or_default());
    let stats = stats::pods(runtime, chosen).await;
    v1::ListPodSandboxStatsResponse {
        stats: stats.iter().map(convert::pod_stats).collect(),
    }
}
