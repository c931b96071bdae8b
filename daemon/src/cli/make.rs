//! What `nexcage run` and `nexcage create` have in common: an image, a pod, a container.

use std::collections::HashMap;
use std::time::Duration;

use nexcage_config::{BACKEND_ANNOTATIONS, Backend, Config};
use nexcage_cri_api::v1;

use super::args::{PodArgs, PodRuntime, PullPolicy};
use super::client::{Client, request, request_within};
use super::error::CliError;
use super::pull;

/// What a pod takes to start at most: twice the usual, as kubelet has it.
const POD_START: Duration = Duration::from_secs(240);

/// Pulls an image if that is needed and wanted.
pub(super) async fn provide_image(
    client: &mut Client,
    image: &str,
    policy: PullPolicy,
) -> Result<(), CliError> {
    let is_missing = match policy {
        PullPolicy::Always => true,
        PullPolicy::Missing | PullPolicy::Never => {
            let spec = v1::ImageSpec {
                image: image.to_owned(),
                ..Default::default()
            };
            let message = v1::ImageStatusRequest {
                image: Some(spec),
                verbose: false,
            };
            let answer = client.images.image_status(request(message)).await;
            let doing = || format!("cannot look for image {image}");
            answer
                .map_err(CliError::rpc(doing()))?
                .into_inner()
                .image
                .is_none()
        }
    };
    match policy {
        PullPolicy::Never if is_missing => {
            let what = format!("image {image} is not here, and --pull never forbids to pull it");
            Err(CliError::State(what))
        }
        _ if is_missing => pull::pull(client, image, None).await.map(drop),
        _ => Ok(()),
    }
}

/// Starts a pod of the kind that `args` ask for; its id.
pub(super) async fn start_pod(
    client: &mut Client,
    mut config: v1::PodSandboxConfig,
    args: &PodArgs,
) -> Result<String, CliError> {
    if let Some(runtime) = args.runtime {
        config.annotations = choice(runtime, default_backend(client).await?);
    }
    let message = v1::RunPodSandboxRequest {
        config: Some(config),
        runtime_handler: args.runtime_handler.clone(),
    };
    let answer = client
        .runtime
        .run_pod_sandbox(request_within(message, POD_START))
        .await;
    Ok(answer
        .map_err(CliError::rpc("cannot start the pod"))?
        .into_inner()
        .pod_sandbox_id)
}

/// The annotation by which the daemon makes a pod of this kind; none if it does so anyway.
fn choice(runtime: PodRuntime, default: Backend) -> HashMap<String, String> {
    if runtime.includes(default) {
        return HashMap::new();
    }
    let backend = match runtime {
        PodRuntime::Lxc => Backend::Lxc,
        PodRuntime::Proxmox => Backend::Proxmox,
        PodRuntime::Host => Backend::Host,
    };
    let [annotation, ..] = BACKEND_ANNOTATIONS;
    [(annotation.to_owned(), backend.name().to_owned())].into()
}

/// The backend of pods that name no runtime handler, as the daemon's configuration has it.
async fn default_backend(client: &mut Client) -> Result<Backend, CliError> {
    let answer = client
        .runtime
        .status(request(v1::StatusRequest { verbose: true }))
        .await;
    let answer = answer.map_err(CliError::rpc("cannot ask for the daemon's configuration"))?;
    let info = answer.into_inner().info;
    let config = info
        .get("config")
        .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())
        .and_then(|info| Config::parse(&info.get("config")?.to_string(), "the daemon").ok());
    config
        .map(|config| config.default_backend())
        .ok_or_else(|| {
            CliError::State(
                "the runtime at this socket does not say what pods it makes; use --runtime-handler"
                    .to_owned(),
            )
        })
}

/// Creates a container that waits to be started; its id.
pub(super) async fn create_container(
    client: &mut Client,
    pod_id: &str,
    pod: v1::PodSandboxConfig,
    config: v1::ContainerConfig,
) -> Result<String, CliError> {
    let message = v1::CreateContainerRequest {
        pod_sandbox_id: pod_id.to_owned(),
        config: Some(config),
        sandbox_config: Some(pod),
    };
    let answer = client.runtime.create_container(request(message)).await;
    Ok(answer
        .map_err(CliError::rpc("cannot create the container"))?
        .into_inner()
        .container_id)
}

/// Starts a container that was created.
pub(super) async fn start_container(client: &mut Client, id: &str) -> Result<(), CliError> {
    let message = v1::StartContainerRequest {
        container_id: id.to_owned(),
    };
    let answer = client.runtime.start_container(request(message)).await;
    answer
        .map(drop)
        .map_err(CliError::rpc("cannot start the container"))
}

/// So many bytes that nobody can guess, as hexadecimal digits.
pub(super) fn random_hex(bytes: usize) -> String {
    (0..bytes)
        .map(|_| format!("{:02x}", rand::random::<u8>()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_asked_for_only_where_it_is_not_the_default() {
        let annotation = |runtime, default| {
            let annotations = choice(runtime, default);
            annotations.get("nexcage.runtime.backend").cloned()
        };
        for default in [Backend::Lxc, Backend::Proxmox] {
            assert_eq!(annotation(PodRuntime::Lxc, default), None);
        }
        assert_eq!(
            annotation(PodRuntime::Lxc, Backend::Host).as_deref(),
            Some("lxc")
        );
        assert_eq!(annotation(PodRuntime::Host, Backend::Host), None);
        for default in [Backend::Lxc, Backend::Host] {
            let asked = annotation(PodRuntime::Proxmox, default);
            assert_eq!(asked.as_deref(), Some("proxmox"));
        }
    }
}
