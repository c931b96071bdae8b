//! `nexcage.v1.Checkpoints`: states of a container's root filesystem that can be gone back to.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::cli::proto::checkpoints_server::{Checkpoints, CheckpointsServer};
use crate::cli::proto::{
    Checkpoint, CreateCheckpointRequest, ListCheckpointsRequest, ListCheckpointsResponse,
    RemoveCheckpointRequest, RemoveCheckpointResponse, RestoreRequest, RestoreResponse,
};
use crate::containers;
use crate::cri::refuse;
use crate::runtime::Runtime;

/// The service, to be added to the server.
pub(crate) fn checkpoints(runtime: Arc<Runtime>) -> CheckpointsServer<CheckpointsService> {
    CheckpointsServer::new(CheckpointsService { runtime })
}

/// Implements the service.
#[derive(Debug)]
pub(crate) struct CheckpointsService {
    runtime: Arc<Runtime>,
}

#[tonic::async_trait]
impl Checkpoints for CheckpointsService {
    async fn create(
        &self,
        request: Request<CreateCheckpointRequest>,
    ) -> Result<Response<Checkpoint>, Status> {
        let CreateCheckpointRequest { container_id } = request.into_inner();
        let made = containers::checkpoint(&self.runtime, &container_id).await;
        let made = made.map_err(|e| refuse("Checkpoints.Create", &e))?;
        Ok(Response::new(message(made)))
    }

    async fn list(
        &self,
        request: Request<ListCheckpointsRequest>,
    ) -> Result<Response<ListCheckpointsResponse>, Status> {
        let ListCheckpointsRequest { container_id } = request.into_inner();
        let listed = containers::checkpoints(&self.runtime, &container_id).await;
        let listed = listed.map_err(|e| refuse("Checkpoints.List", &e))?;
        Ok(Response::new(ListCheckpointsResponse {
            checkpoints: listed.into_iter().map(message).collect(),
        }))
    }

    async fn remove(
        &self,
        request: Request<RemoveCheckpointRequest>,
    ) -> Result<Response<RemoveCheckpointResponse>, Status> {
        let RemoveCheckpointRequest { container_id, name } = request.into_inner();
        let removed = containers::remove_checkpoint(&self.runtime, &container_id, name).await;
        removed.map_err(|e| refuse("Checkpoints.Remove", &e))?;
        Ok(Response::new(RemoveCheckpointResponse {}))
    }

    async fn restore(
        &self,
        request: Request<RestoreRequest>,
    ) -> Result<Response<RestoreResponse>, Status> {
        let RestoreRequest {
            container_id,
            name,
            timeout_seconds,
        } = request.into_inner();
        let name = Some(name).filter(|name| !name.is_empty());
        let grace = Duration::from_secs(timeout_seconds.into());
        let restored = containers::restore(&self.runtime, &container_id, name, grace).await;
        let name = restored.map_err(|e| refuse("Checkpoints.Restore", &e))?;
        Ok(Response::new(RestoreResponse { name }))
    }
}

fn message(checkpoint: nexcage_image_store::Checkpoint) -> Checkpoint {
    Checkpoint {
        name: checkpoint.name,
        created: checkpoint.created,
        bytes: checkpoint.bytes,
    }
}
