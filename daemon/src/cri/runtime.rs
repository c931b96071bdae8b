//! `runtime.v1.RuntimeService`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use nexcage_cri_api::v1;
use nexcage_cri_api::v1::runtime_service_server::RuntimeService;
use tonic::{Request, Response, Status};

use super::convert;
use super::invalid::InvalidField;
use super::status::{refuse, unimplemented};
use crate::error::OpError;
use crate::runtime::Runtime;
use crate::{containers, pods, stats};

/// The version of the CRI protocol's handshake; kubelet accepts exactly this.
const HANDSHAKE: &str = "0.1.0";
/// Name in kubelet's `<name>://<id>`.
const NAME: &str = "nexcage";

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Pods {
    runtime: Arc<Runtime>,
}

type Answer<T> = Result<Response<T>, Status>;
type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Pods {
    pub(crate) fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }
}

/// Finishes an RPC: the answer, or the error as a gRPC status.
fn answer<T>(rpc: &'static str, result: Result<T, OpError>) -> Answer<T> {
    result.map(Response::new).map_err(|e| refuse(rpc, &e))
}

/// A message field that CRI calls optional and nobody leaves out.
fn required<T>(field: &'static str, value: Option<T>) -> Result<T, OpError> {
    value.ok_or_else(|| InvalidField::invalid(field, "is missing").into())
}

/// CRI's timeout in seconds; 0 is `None`.
fn seconds(value: i64) -> Result<Option<Duration>, OpError> {
    match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        Err(_) => Err(InvalidField::invalid("timeout", format!("{value} is negative")).into()),
    }
}

#[tonic::async_trait]
impl RuntimeService for Pods {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        Ok(Response::new(v1::VersionResponse {
            version: HANDSHAKE.into(),
            runtime_name: NAME.into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Answer<v1::RunPodSandboxResponse> {
        const RPC: &str = "RunPodSandbox";
        let v1::RunPodSandboxRequest {
            config,
            runtime_handler,
        } = request.into_inner();
        let spec = required("config", config)
            .and_then(|config| Ok(convert::pod_spec(config)?))
            .map_err(|e| refuse(RPC, &e))?;
        let id = pods::run_pod(&self.runtime, spec, runtime_handler)
            .await
            .map_err(|e| refuse(RPC, &e))?;
        Ok(Response::new(v1::RunPodSandboxResponse {
            pod_sandbox_id: id,
        }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        let v1::StopPodSandboxRequest { pod_sandbox_id: id } = request.into_inner();
        let stopped = pods::stop_pod(&self.runtime, &id).await;
        answer(
            "StopPodSandbox",
            stopped.map(|()| v1::StopPodSandboxResponse {}),
        )
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        let v1::RemovePodSandboxRequest { pod_sandbox_id: id } = request.into_inner();
        let removed = pods::remove_pod(&self.runtime, &id).await;
        answer(
            "RemovePodSandbox",
            removed.map(|()| v1::RemovePodSandboxResponse {}),
        )
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let v1::PodSandboxStatusRequest {
            pod_sandbox_id,
            verbose,
        } = request.into_inner();
        let pod = self.runtime.inventory.pod(&pod_sandbox_id);
        let containers = |pod: &pods::Pod| self.runtime.inventory.containers_of(&pod.record().id);
        answer(
            "PodSandboxStatus",
            pod.map(|pod| convert::pod_status(&pod.record(), &containers(&pod), verbose)),
        )
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let v1::ListPodSandboxRequest { filter } = request.into_inner();
        let items = convert::list_pods(&self.runtime.inventory, filter.unwrap_or_default());
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        const RPC: &str = "CreateContainer";
        // The pod's configuration is known from RunPodSandbox; kubelet repeats it for runtimes without state.
        let v1::CreateContainerRequest {
            pod_sandbox_id,
            config,
            sandbox_config: _,
        } = request.into_inner();
        let spec = required("config", config)
            .and_then(|config| Ok(convert::container_spec(config)?))
            .map_err(|e| refuse(RPC, &e))?;
        let id = containers::create_container(&self.runtime, &pod_sandbox_id, spec)
            .await
            .map_err(|e| refuse(RPC, &e))?;
        Ok(Response::new(v1::CreateContainerResponse {
            container_id: id,
        }))
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Answer<v1::StartContainerResponse> {
        let v1::StartContainerRequest { container_id } = request.into_inner();
        let started = containers::start_container(&self.runtime, &container_id).await;
        answer(
            "StartContainer",
            started.map(|()| v1::StartContainerResponse {}),
        )
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Answer<v1::StopContainerResponse> {
        let v1::StopContainerRequest {
            container_id: id,
            timeout,
        } = request.into_inner();
        let stopped = async {
            let grace = seconds(timeout)?.unwrap_or_default();
            containers::stop_container(&self.runtime, &id, grace).await
        };
        let stopped = stopped.await;
        answer(
            "StopContainer",
            stopped.map(|()| v1::StopContainerResponse {}),
        )
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        let v1::RemoveContainerRequest { container_id: id } = request.into_inner();
        let removed = containers::remove_container(&self.runtime, &id).await;
        answer(
            "RemoveContainer",
            removed.map(|()| v1::RemoveContainerResponse {}),
        )
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        let v1::ListContainersRequest { filter } = request.into_inner();
        let containers =
            convert::list_containers(&self.runtime.inventory, filter.unwrap_or_default());
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let v1::ContainerStatusRequest {
            container_id,
            verbose,
        } = request.into_inner();
        let container = self.runtime.inventory.container(&container_id);
        let status = match container {
            Ok(container) => Ok(convert::container_status(container.record(), verbose).await),
            Err(e) => Err(e),
        };
        answer("ContainerStatus", status)
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        const RPC: &str = "UpdateContainerResources";
        // Annotations are for plugins (NRI), which this runtime does not have; kubelet sends none.
        let v1::UpdateContainerResourcesRequest {
            container_id,
            linux,
            windows,
            annotations: _,
        } = request.into_inner();
        let updated = async {
            if windows.is_some() {
                return Err(InvalidField::unsupported("windows", "this is a Linux node").into());
            }
            let resources = convert::resources("linux", required("linux", linux)?)?;
            containers::update_resources(&self.runtime, &container_id, resources).await
        };
        answer(
            RPC,
            updated
                .await
                .map(|()| v1::UpdateContainerResourcesResponse {}),
        )
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        let v1::ReopenContainerLogRequest { container_id } = request.into_inner();
        let reopened = containers::reopen_log(&self.runtime, &container_id).await;
        answer(
            "ReopenContainerLog",
            reopened.map(|()| v1::ReopenContainerLogResponse {}),
        )
    }

    async fn exec_sync(
        &self,
        request: Request<v1::ExecSyncRequest>,
    ) -> Answer<v1::ExecSyncResponse> {
        let v1::ExecSyncRequest {
            container_id,
            cmd,
            timeout,
        } = request.into_inner();
        let output = async {
            if cmd.is_empty() {
                return Err(InvalidField::invalid("cmd", "is empty").into());
            }
            let timeout = seconds(timeout)?;
            containers::exec_sync(&self.runtime, &container_id, cmd, timeout).await
        };
        answer(
            "ExecSync",
            output.await.map(|o| v1::ExecSyncResponse {
                stdout: o.stdout,
                stderr: o.stderr,
                exit_code: o.exit_code,
            }),
        )
    }

    async fn exec(&self, _: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        Err(unimplemented(
            "Exec",
            "there is no streaming server yet; use ExecSync (crictl exec -s)",
        ))
    }

    async fn attach(&self, _: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        Err(unimplemented("Attach", "there is no streaming server yet"))
    }

    async fn port_forward(
        &self,
        _: Request<v1::PortForwardRequest>,
    ) -> Answer<v1::PortForwardResponse> {
        Err(unimplemented(
            "PortForward",
            "there is no streaming server yet",
        ))
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Answer<v1::ContainerStatsResponse> {
        let v1::ContainerStatsRequest { container_id } = request.into_inner();
        let stats = stats::one_container(&self.runtime, &container_id).await;
        answer(
            "ContainerStats",
            stats.map(|s| v1::ContainerStatsResponse {
                stats: Some(convert::container_stats(&s)),
            }),
        )
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        let v1::ListContainerStatsRequest { filter } = request.into_inner();
        let chosen =
            convert::containers_for_stats(&self.runtime.inventory, filter.unwrap_or_default());
        let stats = stats::containers(&self.runtime, chosen).await;
        let stats = stats.iter().map(convert::container_stats).collect();
        Ok(Response::new(v1::ListContainerStatsResponse { stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        let v1::PodSandboxStatsRequest { pod_sandbox_id } = request.into_inner();
        let stats = stats::one_pod(&self.runtime, &pod_sandbox_id).await;
        answer(
            "PodSandboxStats",
            stats.map(|s| v1::PodSandboxStatsResponse {
                stats: Some(convert::pod_stats(&s)),
            }),
        )
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        let v1::ListPodSandboxStatsRequest { filter } = request.into_inner();
        let chosen = convert::pods_for_stats(&self.runtime.inventory, filter.unwrap_or_default());
        let stats = stats::pods(&self.runtime, chosen).await;
        let stats = stats.iter().map(convert::pod_stats).collect();
        Ok(Response::new(v1::ListPodSandboxStatsResponse { stats }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        // The pod CIDR is for runtimes that write CNI configurations from a template; here, as usual with
        // containerd and CRI-O, the network plugin brings its own.
        let v1::UpdateRuntimeConfigRequest { runtime_config } = request.into_inner();
        tracing::info!(
            ?runtime_config,
            "the pod CIDR is the network plugin's business"
        );
        Ok(Response::new(v1::UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let v1::StatusRequest { verbose } = request.into_inner();
        Ok(Response::new(convert::status(&self.runtime, verbose).await))
    }

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        Err(unimplemented(
            "CheckpointContainer",
            "checkpoints are not supported",
        ))
    }

    async fn checkpoint_pod(
        &self,
        _: Request<v1::CheckpointPodRequest>,
    ) -> Answer<v1::CheckpointPodResponse> {
        Err(unimplemented(
            "CheckpointPod",
            "checkpoints are not supported",
        ))
    }

    async fn restore_pod(
        &self,
        _: Request<v1::RestorePodRequest>,
    ) -> Answer<v1::RestorePodResponse> {
        Err(unimplemented("RestorePod", "checkpoints are not supported"))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        Err(unimplemented(
            "ListMetricDescriptors",
            "pod metrics are not supported",
        ))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        Err(unimplemented(
            "ListPodSandboxMetrics",
            "pod metrics are not supported",
        ))
    }

    async fn runtime_config(
        &self,
        _: Request<v1::RuntimeConfigRequest>,
    ) -> Answer<v1::RuntimeConfigResponse> {
        let driver = if self.runtime.node.systemd {
            v1::CgroupDriver::Systemd
        } else {
            v1::CgroupDriver::Cgroupfs
        };
        let linux = v1::LinuxRuntimeConfiguration {
            cgroup_driver: driver.into(),
        };
        Ok(Response::new(v1::RuntimeConfigResponse {
            linux: Some(linux),
        }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        _: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        Err(unimplemented(
            "UpdatePodSandboxResources",
            "a pod's own limits are kubelet's; containers are resized by UpdateContainerResources",
        ))
    }

    type GetContainerEventsStream = Streaming<v1::ContainerEventResponse>;
    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        Err(unimplemented(
            "GetContainerEvents",
            "container events are not supported",
        ))
    }

    type StreamPodSandboxesStream = Streaming<v1::StreamPodSandboxesResponse>;
    async fn stream_pod_sandboxes(
        &self,
        _: Request<v1::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        Err(unimplemented("StreamPodSandboxes", "use ListPodSandbox"))
    }

    type StreamContainersStream = Streaming<v1::StreamContainersResponse>;
    async fn stream_containers(
        &self,
        _: Request<v1::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        Err(unimplemented("StreamContainers", "use ListContainers"))
    }

    type StreamContainerStatsStream = Streaming<v1::StreamContainerStatsResponse>;
    async fn stream_container_stats(
        &self,
        _: Request<v1::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        Err(unimplemented(
            "StreamContainerStats",
            "use ListContainerStats",
        ))
    }

    type StreamPodSandboxStatsStream = Streaming<v1::StreamPodSandboxStatsResponse>;
    async fn stream_pod_sandbox_stats(
        &self,
        _: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        Err(unimplemented(
            "StreamPodSandboxStats",
            "use ListPodSandboxStats",
        ))
    }

    type StreamPodSandboxMetricsStream = Streaming<v1::StreamPodSandboxMetricsResponse>;
    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        Err(unimplemented(
            "StreamPodSandboxMetrics",
            "pod metrics are not supported",
        ))
    }
}
