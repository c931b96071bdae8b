//! Containers, and what is done in them.

use std::sync::Arc;
use std::time::Duration;

use nexcage_cri_api::v1;

use super::required;
use crate::containers;
use crate::cri::convert;
use crate::cri::invalid::InvalidField;
use crate::error::OpError;
use crate::runtime::Runtime;

pub(super) async fn create(
    runtime: &Arc<Runtime>,
    request: v1::CreateContainerRequest,
) -> Result<v1::CreateContainerResponse, Arc<OpError>> {
    // The pod's configuration is known from RunPodSandbox; kubelet repeats it for runtimes without state.
    let v1::CreateContainerRequest {
        pod_sandbox_id,
        config,
        sandbox_config: _,
    } = request;
    let spec =
        required("config", config).and_then(|config| Ok(convert::container_spec(config)?))?;
    Ok(v1::CreateContainerResponse {
        container_id: containers::create_container(runtime, &pod_sandbox_id, spec).await?,
    })
}

pub(super) async fn start(
    runtime: &Arc<Runtime>,
    request: v1::StartContainerRequest,
) -> Result<v1::StartContainerResponse, OpError> {
    let v1::StartContainerRequest { container_id } = request;
    containers::start_container(runtime, &container_id).await?;
    Ok(v1::StartContainerResponse {})
}

pub(super) async fn stop(
    runtime: &Arc<Runtime>,
    request: v1::StopContainerRequest,
) -> Result<v1::StopContainerResponse, OpError> {
    let v1::StopContainerRequest {
        container_id,
        timeout,
    } = request;
    let grace = seconds(timeout)?.unwrap_or_default();
    containers::stop_container(runtime, &container_id, grace).await?;
    Ok(v1::StopContainerResponse {})
}

pub(super) async fn remove(
    runtime: &Arc<Runtime>,
    request: v1::RemoveContainerRequest,
) -> Result<v1::RemoveContainerResponse, OpError> {
    let v1::RemoveContainerRequest { container_id } = request;
    containers::remove_container(runtime, &container_id).await?;
    Ok(v1::RemoveContainerResponse {})
}

pub(super) fn list(
    runtime: &Runtime,
    request: v1::ListContainersRequest,
) -> v1::ListContainersResponse {
    let v1::ListContainersRequest { filter } = request;
    let containers = convert::list_containers(&runtime.inventory, filter.unwrap_or_default());
    v1::ListContainersResponse { containers }
}

pub(super) async fn status(
    runtime: &Runtime,
    request: v1::ContainerStatusRequest,
) -> Result<v1::ContainerStatusResponse, OpError> {
    let v1::ContainerStatusRequest {
        container_id,
        verbose,
    } = request;
    let container = runtime.inventory.container(&container_id)?;
    Ok(convert::container_status(container.record(), verbose).await)
}

pub(super) async fn update_resources(
    runtime: &Arc<Runtime>,
    request: v1::UpdateContainerResourcesRequest,
) -> Result<v1::UpdateContainerResourcesResponse, OpError> {
    // Annotations are for plugins (NRI), which this runtime does not have; kubelet sends none.
    let v1::UpdateContainerResourcesRequest {
        container_id,
        linux,
        windows,
        annotations: _,
    } = request;
    if windows.is_some() {
        return Err(InvalidField::unsupported("windows", "this is a Linux node").into());
    }
    let resources = convert::resources("linux", required("linux", linux)?)?;
    containers::update_resources(runtime, &container_id, resources).await?;
    Ok(v1::UpdateContainerResourcesResponse {})
}

pub(super) async fn reopen_log(
    runtime: &Arc<Runtime>,
    request: v1::ReopenContainerLogRequest,
) -> Result<v1::ReopenContainerLogResponse, OpError> {
    let v1::ReopenContainerLogRequest { container_id } = request;
    containers::reopen_log(runtime, &container_id).await?;
    Ok(v1::ReopenContainerLogResponse {})
}

pub(super) async fn exec_sync(
    runtime: &Arc<Runtime>,
    request: v1::ExecSyncRequest,
) -> Result<v1::ExecSyncResponse, OpError> {
    let v1::ExecSyncRequest {
        container_id,
        cmd,
        timeout,
    } = request;
    if cmd.is_empty() {
        return Err(InvalidField::invalid("cmd", "is empty").into());
    }
    let timeout = seconds(timeout)?;
    let output = containers::exec_sync(runtime, &container_id, cmd, timeout).await?;
    Ok(v1::ExecSyncResponse {
        stdout: output.stdout,
        stderr: output.stderr,
        exit_code: output.exit_code,
    })
}

/// CRI's timeout in seconds; 0 is `None`.
fn seconds(value: i64) -> Result<Option<Duration>, OpError> {
    match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        Err(_) => Err(InvalidField::invalid("timeout", format!("{value} is negative")).into()),
    }
}
