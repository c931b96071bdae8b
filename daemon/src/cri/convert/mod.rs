//! prost messages to domain types and back, one file per subject.

mod container;
mod container_security;
mod image;
mod pod;
mod pod_limits;
mod stats;
mod status;
mod user_namespace;
mod view;

pub(crate) use container::container_spec;
pub(crate) use container::resources;
pub(crate) use image::credentials;
pub(crate) use image::image_info;
pub(crate) use image::image_view;
pub(crate) use pod::pod_spec;
pub(crate) use pod_limits::pod_limits;
pub(crate) use pod_limits::pod_overhead;
pub(crate) use stats::container_stats;
pub(crate) use stats::containers_for_stats;
pub(crate) use stats::pod_stats;
pub(crate) use stats::pods_for_stats;
pub(crate) use status::status;
pub(crate) use view::container_status;
pub(crate) use view::list_containers;
pub(crate) use view::list_pods;
pub(crate) use view::pod_status;
