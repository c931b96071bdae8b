//! Pod and container configurations as messages, for a raw [`Client`](crate::client::Client).

use nexcage_cri_api::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxContainerConfig, LinuxPodSandboxConfig,
    PodSandboxConfig, PodSandboxMetadata,
};

use crate::image;

/// A pod with a network of its own. Its name is also its hostname.
#[must_use]
pub fn pod(name: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "nxt".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        linux: Some(LinuxPodSandboxConfig::default()),
        ..PodSandboxConfig::default()
    }
}

/// A container of the busybox image that sleeps for a day.
#[must_use]
pub fn container(name: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: image::BUSYBOX.to_owned(),
            ..ImageSpec::default()
        }),
        command: vec!["sleep".to_owned(), "86400".to_owned()],
        linux: Some(LinuxContainerConfig::default()),
        ..ContainerConfig::default()
    }
}
