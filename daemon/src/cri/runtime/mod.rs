//! `runtime.v1.RuntimeService`: which message goes to which function, and its error back as a gRPC status.

mod containers;
mod pods;
mod stats;

use std::borrow::Borrow;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use nexcage_cri_api::v1;
use nexcage_cri_api::v1::runtime_service_server::RuntimeService;
use tonic::{Request, Response, Status};

use super::convert;
use super::invalid::InvalidField;
use super::status::{refuse, unimplemented};
use crate::error::OpError;
use crate::runtime::Runtime;

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
fn answer<T, E: Borrow<OpError>>(rpc: &'static str, result: Result<T, E>) -> Answer<T> {
    result
        .map(Response::new)
        .map_err(|e| refuse(rpc, e.borrow()))
}

/// A message field that CRI calls optional and nobody leaves out.
fn required<T>(field: &'static str, value: Option<T>) -> Result<T, OpError> {
    value.ok_or_else(|| InvalidField::invalid(field, "is missing").into())
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
        answer(
            "RunPodSandbox",
            pods::run(&self.runtime, request.into_inner()).await,
        )
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        answer(
            "StopPodSandbox",
            pods::stop(&self.runtime, request.into_inner()).await,
        )
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        answer(
            "RemovePodSandbox",
            pods::remove(&self.runtime, request.into_inner()).await,
        )
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        answer(
            "PodSandboxStatus",
            pods::status(&self.runtime, request.into_inner()),
        )
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        Ok(Response::new(pods::list(
            &self.runtime,
            request.into_inner(),
        )))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        answer(
            "CreateContainer",
            Box::pin(containers::create(&self.runtime, request.into_inner())).await,
        )
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Answer<v1::StartContainerResponse> {
        answer(
            "StartContainer",
            containers::start(&self.runtime, request.into_inner()).await,
        )
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Answer<v1::StopContainerResponse> {
        answer(
            "StopContainer",
            containers::stop(&self.runtime, request.into_inner()).await,
        )
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        answer(
            "RemoveContainer",
            containers::remove(&self.runtime, request.into_inner()).await,
        )
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        Ok(Response::new(containers::list(
            &self.runtime,
            request.into_inner(),
        )))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        answer(
            "ContainerStatus",
            containers::status(&self.runtime, request.into_inner()).await,
        )
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        answer(
            "UpdateContainerResources",
            containers::update_resources(&self.runtime, request.into_inner()).await,
        )
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        answer(
            "ReopenContainerLog",
            containers::reopen_log(&self.runtime, request.into_inner()).await,
        )
    }

    async fn exec_sync(
        &self,
        request: Request<v1::ExecSyncRequest>,
    ) -> Answer<v1::ExecSyncResponse> {
        answer(
            "ExecSync",
            containers::exec_sync(&self.runtime, request.into_inner()).await,
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
        answer(
            "ContainerStats",
            stats::container(&self.runtime, request.into_inner()).await,
        )
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        Ok(Response::new(
            stats::containers(&self.runtime, request.into_inner()).await,
        ))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        answer(
            "PodSandboxStats",
            stats::pod(&self.runtime, request.into_inner()).await,
        )
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        Ok(Response::new(
            stats::pods(&self.runtime, request.into_inner()).await,
        ))
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
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        answer(
            "UpdatePodSandboxResources",
            pods::update_resources(&self.runtime, request.into_inner()).await,
        )
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
