//! Pod sandboxes.

use std::sync::Arc;

use nexcage_cri_api::v1;

use super::required;
use crate::cri::convert;
use crate::error::OpError;
use crate::pods;
use crate::runtime::Runtime;

pub(super) async fn run(
    runtime: &Arc<Runtime>,
    request: v1::RunPodSandboxRequest,
) -> Result<v1::RunPodSandboxResponse, Arc<OpError>> {
    let v1::RunPodSandboxRequest {
        config,
        runtime_handler,
    } = request;
    let spec = required("config", config).and_then(|config| Ok(convert::pod_spec(config)?))?;
    Ok(v1::RunPodSandboxResponse {
        pod_sandbox_id: pods::run_pod(runtime, spec, runtime_handler).await?,
    })
}

pub(super) async fn stop(
    runtime: &Arc<Runtime>,
    request: v1::StopPodSandboxRequest,
) -> Result<v1::StopPodSandboxResponse, OpError> {
    let v1::StopPodSandboxRequest { pod_sandbox_id } = request;
    pods::stop_pod(runtime, &pod_sandbox_id).await?;
    Ok(v1::StopPodSandboxResponse {})
}

pub(super) async fn remove(
    runtime: &Arc<Runtime>,
    request: v1::RemovePodSandboxRequest,
) -> Result<v1::RemovePodSandboxResponse, OpError> {
    let v1::RemovePodSandboxRequest { pod_sandbox_id } = request;
    pods::remove_pod(runtime, &pod_sandbox_id).await?;
    Ok(v1::RemovePodSandboxResponse {})
}

pub(super) fn status(
    runtime: &Runtime,
    request: v1::PodSandboxStatusRequest,
) -> Result<v1::PodSandboxStatusResponse, OpError> {
    let v1::PodSandboxStatusRequest {
        pod_sandbox_id,
        verbose,
    } = request;
    let pod = runtime.inventory.pod(&pod_sandbox_id)?;
    let containers = runtime.inventory.containers_of(&pod.record().id);
    Ok(convert::pod_status(&pod, &containers, verbose))
}

pub(super) fn list(
    runtime: &Runtime,
    request: v1::ListPodSandboxRequest,
) -> v1::ListPodSandboxResponse {
    let v1::ListPodSandboxRequest { filter } = request;
    let items = convert::list_pods(&runtime.inventory, filter.unwrap_or_default());
    v1::ListPodSandboxResponse { items }
}

pub(super) async fn update_resources(
    runtime: &Arc<Runtime>,
    request: v1::UpdatePodSandboxResourcesRequest,
) -> Result<v1::UpdatePodSandboxResourcesResponse, OpError> {
    let v1::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id,
        overhead,
        resources,
    } = request;
    let resources = convert::pod_limits("resources", resources.unwrap_or_default())?;
    let overhead = overhead
        .map(|o| convert::pod_overhead("overhead", o))
        .transpose()?;
    pods::update_resources(runtime, &pod_sandbox_id, resources, overhead).await?;
    Ok(v1::UpdatePodSandboxResourcesResponse {})
}
