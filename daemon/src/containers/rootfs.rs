//! A container's root filesystem: what it shall be, made, mounted while the OCI runtime needs it, and let go.
//!
//! Nothing stays mounted on the host. Once the container is created, it is in a mount namespace of its own, which keeps the
//! root filesystem and image volumes; in the host's table they would only be counted and walked by kubelet's
//! cAdvisor, which looks at every mount it finds.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use nexcage_config::RootfsProperties;
use nexcage_image_store::{ImageRecord, RootfsId, RootfsOptions};

use super::record::ContainerRecord;
use super::user_namespace;
use crate::cri::InvalidField;
use crate::error::{Chain, OpError};
use crate::pods::PodRecord;
use crate::runtime::Runtime;

/// What root filesystems of a pod's containers shall be: what its annotations say, if the runtime handler `handler` lets
/// them, then what the handler says.
pub(crate) fn properties(
    runtime: &Runtime,
    annotations: &BTreeMap<String, String>,
    handler: &str,
) -> Result<RootfsProperties, InvalidField> {
    // A handler may be gone from the configuration since the pod was made.
    let handler = match runtime.config.handler(handler) {
        Some(handler) => handler,
        None => runtime.config.handler("").ok_or_else(no_handler)?,
    };
    let mut asked = RootfsProperties::default();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(RootfsProperties::ANNOTATIONS) else {
            continue;
        };
        let field = || format!("config.annotations[{key:?}]");
        if !handler.allows_annotation(key) {
            let why = format!(
                "is not among the annotations that the runtime handler {:?} allows",
                handler.name
            );
            return Err(InvalidField::invalid(field(), why));
        }
        asked
            .set(name, value)
            .map_err(|e| InvalidField::invalid(field(), e.to_string()))?;
    }
    Ok(asked.or(&handler.rootfs))
}

fn no_handler() -> InvalidField {
    InvalidField::invalid("runtime_handler", "is not configured")
}

/// Makes a container's root filesystem on the image's layers.
pub(crate) async fn make(
    runtime: &Runtime,
    record: &ContainerRecord,
    image: &ImageRecord,
    properties: &RootfsProperties,
) -> Result<(), OpError> {
    let top = image
        .top()
        .ok_or_else(|| OpError::State(format!("image {} has no layers", image.id)))?;
    let options = RootfsOptions {
        quota_bytes: properties.quota.map(|quota| quota.bytes()),
        properties: properties.by_name(),
    };
    let made = runtime
        .images
        .layers()
        .create_rootfs(&RootfsId(record.id.clone()), top, &options)
        .await;
    made.map_err(OpError::step(format!(
        "cannot make the root filesystem of {}",
        record.id
    )))
}

/// Mounts it and says where.
pub(crate) async fn mount(
    runtime: &Runtime,
    pod: &PodRecord,
    record: &ContainerRecord,
) -> Result<Utf8PathBuf, OpError> {
    let options = user_namespace::mount_options(pod)?;
    let mounted = runtime
        .images
        .layers()
        .mount_rootfs(&RootfsId(record.id.clone()), options)
        .await;
    mounted.map_err(OpError::step(format!(
        "cannot mount the root filesystem of {}",
        record.id
    )))
}

/// Takes a created container's root filesystem and image volumes out of the host's mount table. A failure costs nothing but
/// an entry there until the container is removed.
pub(crate) async fn release(runtime: &Runtime, record: &ContainerRecord) {
    let volumes = record.image_volumes.iter().map(|v| v.rootfs.clone());
    for name in std::iter::once(record.id.clone()).chain(volumes) {
        let released = runtime
            .images
            .layers()
            .unmount_rootfs(&RootfsId(name))
            .await;
        if let Err(error) = released {
            tracing::warn!(container = record.id, error = %Chain(&error), "cannot unmount from the host");
        }
    }
}
