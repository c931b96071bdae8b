//! `runtime.v1.ImageService`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use nexcage_cri_api::v1;
use nexcage_cri_api::v1::image_service_server::ImageService;
use nexcage_image_store::Usage;
use tonic::{Request, Response, Status};

use super::convert;
use super::invalid::InvalidField;
use super::status::{refuse, unimplemented};
use crate::error::OpError;
use crate::runtime::Runtime;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    runtime: Arc<Runtime>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Images {
    pub(crate) fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }

    async fn list(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>, OpError> {
        let wanted = filter
            .and_then(|f| f.image)
            .map(|spec| spec.image)
            .unwrap_or_default();
        let store = &self.runtime.images;
        let found = if wanted.is_empty() {
            store
                .images()
                .await
                .map_err(OpError::step("cannot list images"))?
        } else {
            find(&self.runtime, &wanted).await?.into_iter().collect()
        };
        Ok(found.iter().map(convert::image_view).collect())
    }

    async fn pull(&self, request: v1::PullImageRequest) -> Result<String, OpError> {
        // The pod's configuration is of use to runtimes that choose a store by pod.
        let v1::PullImageRequest {
            image,
            auth,
            sandbox_config: _,
        } = request;
        let spec = image.ok_or_else(|| InvalidField::invalid("image", "is missing"))?;
        let reference = spec
            .image
            .parse()
            .map_err(|e: nexcage_image_store::ReferenceError| {
                InvalidField::invalid("image.image", e.to_string())
            })?;
        let credentials = convert::credentials(auth.unwrap_or_default())?;
        let record = self
            .runtime
            .images
            .pull(&reference, credentials, None)
            .await?;
        Ok(record.id.to_string())
    }
}

async fn find(
    runtime: &Runtime,
    name: &str,
) -> Result<Option<nexcage_image_store::ImageRecord>, OpError> {
    runtime
        .images
        .image(name)
        .await
        .map_err(OpError::step("cannot look up the image"))
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Answer<v1::ListImagesResponse> {
        let v1::ListImagesRequest { filter } = request.into_inner();
        let images = self
            .list(filter)
            .await
            .map_err(|e| refuse("ListImages", &e))?;
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Answer<v1::ImageStatusResponse> {
        let v1::ImageStatusRequest { image, verbose } = request.into_inner();
        let found = async {
            let spec = image.ok_or_else(|| InvalidField::invalid("image", "is missing"))?;
            if spec.image.is_empty() {
                return Err(InvalidField::invalid("image.image", "is empty").into());
            }
            find(&self.runtime, &spec.image).await
        };
        let found = found.await.map_err(|e| refuse("ImageStatus", &e))?;
        let info = match &found {
            Some(record) if verbose => convert::image_info(record),
            _ => Default::default(),
        };
        let image = found.as_ref().map(convert::image_view);
        Ok(Response::new(v1::ImageStatusResponse { image, info }))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Answer<v1::PullImageResponse> {
        let pulled = self.pull(request.into_inner()).await;
        let image_ref = pulled.map_err(|e| refuse("PullImage", &e))?;
        Ok(Response::new(v1::PullImageResponse { image_ref }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Answer<v1::RemoveImageResponse> {
        let v1::RemoveImageRequest { image } = request.into_inner();
        let runtime = Arc::clone(&self.runtime);
        let removed = async {
            let spec = image.ok_or_else(|| InvalidField::invalid("image", "is missing"))?;
            if spec.image.is_empty() {
                return Err(InvalidField::invalid("image.image", "is empty").into());
            }
            let remove = async move {
                let name = spec.image;
                runtime
                    .images
                    .remove(&name)
                    .await
                    .map_err(OpError::step("cannot remove the image"))
            };
            self.runtime.detached(remove).await
        };
        removed
            .await
            .map_err(|e: OpError| refuse("RemoveImage", &e))?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Answer<v1::ImageFsInfoResponse> {
        const RPC: &str = "ImageFsInfo";
        let layers = self.runtime.images.layers();
        let mountpoint = layers.mountpoint().to_string();
        let doing = || OpError::step("cannot measure the image file system");
        let images = layers
            .layers_usage()
            .await
            .map_err(doing())
            .map_err(|e| refuse(RPC, &e))?;
        let containers = layers
            .rootfses_usage()
            .await
            .map_err(doing())
            .map_err(|e| refuse(RPC, &e))?;
        Ok(Response::new(v1::ImageFsInfoResponse {
            image_filesystems: vec![filesystem(&mountpoint, images)],
            container_filesystems: vec![filesystem(&mountpoint, containers)],
        }))
    }

    type StreamImagesStream =
        Pin<Box<dyn Stream<Item = Result<v1::StreamImagesResponse, Status>> + Send>>;
    async fn stream_images(
        &self,
        _: Request<v1::StreamImagesRequest>,
    ) -> Answer<Self::StreamImagesStream> {
        Err(unimplemented("StreamImages", "use ListImages"))
    }
}

fn filesystem(mountpoint: &str, usage: Usage) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: crate::node::now(),
        fs_id: Some(v1::FilesystemIdentifier {
            mountpoint: mountpoint.to_owned(),
        }),
        used_bytes: Some(v1::UInt64Value { value: usage.bytes }),
        inodes_used: Some(v1::UInt64Value {
            value: usage.inodes,
        }),
    }
}
