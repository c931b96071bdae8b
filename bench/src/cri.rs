//! The client: CRI over a Unix socket, the same for all servers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use hyper_util::rt::TokioIo;
use nexcage_cri_api::v1 as api;
use nexcage_cri_api::v1::image_service_client::ImageServiceClient;
use nexcage_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use serde_json::Value;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::contender::Kind;
use crate::stage;

/// Time a server has to begin to serve.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds the container has to end when it is asked to; it does so at once.
const GRACE: i64 = 10;

/// The container's log in the pod's directory.
const LOG: &str = "app.log";

/// Both services of one server.
pub(crate) struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    socket: Utf8PathBuf,
    cgroup_parent: String,
    logs: Utf8PathBuf,
}

/// A pod with one running container.
pub(crate) struct Pod {
    pub(crate) sandbox: String,
    pub(crate) container: String,
    pub(crate) log: Utf8PathBuf,
    number: u32,
    /// How often its container has been made anew.
    attempt: u32,
}

impl Client {
    /// Waits until `socket` answers, which is that of this contender.
    pub(crate) async fn connect(socket: &Utf8Path, kind: Kind) -> anyhow::Result<Self> {
        let path = socket.to_owned();
        // Go's servers want an authority that is a host's name; the path of the socket is not.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(
            tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }),
        );
        let mut client = Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel).max_decoding_message_size(64 << 20),
            socket: socket.to_owned(),
            cgroup_parent: stage::cgroup_parent(kind),
            logs: stage::logs(kind),
        };
        let ready = async {
            while client.status().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready)
            .await
            .with_context(|| format!("nobody serves at {socket}"))?;
        Ok(client)
    }

    /// Where the server listens.
    pub(crate) fn socket(&self) -> &Utf8Path {
        &self.socket
    }

    async fn status(&mut self) -> Result<(), tonic::Status> {
        self.runtime.status(api::StatusRequest::default()).await?;
        Ok(())
    }

    /// Name and version, for the report.
    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        let version = self
            .runtime
            .clone()
            .version(api::VersionRequest::default())
            .await
            .context("Version")?
            .into_inner();
        Ok(format!(
            "{} {}",
            version.runtime_name, version.runtime_version
        ))
    }

    /// Pulls an image.
    pub(crate) async fn pull(&self, image: &str) -> anyhow::Result<()> {
        let request = api::PullImageRequest {
            image: Some(image_spec(image)),
            ..Default::default()
        };
        self.images
            .clone()
            .pull_image(request)
            .await
            .with_context(|| format!("PullImage {image}"))?;
        Ok(())
    }

    /// Removes an image and waits until its layers are gone, so that the next pull is one.
    pub(crate) async fn forget(&self, image: &str) -> anyhow::Result<()> {
        let request = api::RemoveImageRequest {
            image: Some(image_spec(image)),
        };
        let mut images = self.images.clone();
        images.remove_image(request).await.context("RemoveImage")?;
        let gone = async {
            loop {
                let info = images
                    .image_fs_info(api::ImageFsInfoRequest::default())
                    .await
                    .context("ImageFsInfo")?
                    .into_inner();
                let used = |fs: &api::FilesystemUsage| fs.used_bytes.map_or(0, |used| used.value);
                if info.image_filesystems.iter().map(used).sum::<u64>() < 64 << 20 {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone)
            .await
            .context("the layers of a removed image stay")?
    }

    /// RunPodSandbox, CreateContainer, StartContainer. Says how long the first of them took.
    pub(crate) async fn start(&self, number: u32) -> anyhow::Result<(Pod, Duration)> {
        let mut runtime = self.runtime.clone();
        let config = self.pod(number);
        let log = Utf8Path::new(&config.log_directory).join(LOG);
        let request = api::RunPodSandboxRequest {
            config: Some(config),
            ..Default::default()
        };
        let begun = Instant::now();
        let sandbox = runtime
            .run_pod_sandbox(request)
            .await
            .context("RunPodSandbox")?
            .into_inner()
            .pod_sandbox_id;
        let took = begun.elapsed();
        let mut pod = Pod {
            sandbox,
            container: String::new(),
            log,
            number,
            attempt: 0,
        };
        self.start_container(&mut pod).await?;
        Ok((pod, took))
    }

    /// Stops the pod's container and starts another in its place, as kubelet does. Says how long StopContainer took, and how
    /// long CreateContainer and StartContainer did. The old one is removed after that.
    pub(crate) async fn restart(&self, pod: &mut Pod) -> anyhow::Result<[Duration; 2]> {
        let old = pod.container.clone();
        let begun = Instant::now();
        self.stop_container(&old).await?;
        let stop = begun.elapsed();
        pod.attempt += 1;
        let begun = Instant::now();
        self.start_container(pod).await?;
        let start = begun.elapsed();
        self.remove_container(&old).await?;
        Ok([stop, start])
    }

    /// CreateContainer and StartContainer, of what is to be the pod's container.
    async fn start_container(&self, pod: &mut Pod) -> anyhow::Result<()> {
        let mut runtime = self.runtime.clone();
        let request = api::CreateContainerRequest {
            pod_sandbox_id: pod.sandbox.clone(),
            config: Some(container(pod.attempt)),
            sandbox_config: Some(self.pod(pod.number)),
        };
        let container = runtime.create_container(request).await;
        pod.container = container
            .context("CreateContainer")?
            .into_inner()
            .container_id;
        let request = api::StartContainerRequest {
            container_id: pod.container.clone(),
        };
        let started = runtime.start_container(request).await;
        started.map(drop).context("StartContainer")
    }

    async fn stop_container(&self, container: &str) -> anyhow::Result<()> {
        let request = api::StopContainerRequest {
            container_id: container.to_owned(),
            timeout: GRACE,
        };
        let stopped = self.runtime.clone().stop_container(request).await;
        stopped.map(drop).context("StopContainer")
    }

    async fn remove_container(&self, container: &str) -> anyhow::Result<()> {
        let request = api::RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        let removed = self.runtime.clone().remove_container(request).await;
        removed.map(drop).context("RemoveContainer")
    }

    /// ExecSync of a command that has to succeed.
    pub(crate) async fn exec(&self, pod: &Pod, command: &[&str]) -> anyhow::Result<()> {
        let request = api::ExecSyncRequest {
            container_id: pod.container.clone(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: GRACE,
        };
        let answer = self
            .runtime
            .clone()
            .exec_sync(request)
            .await
            .context("ExecSync")?
            .into_inner();
        ensure!(
            answer.exit_code == 0,
            "ExecSync of {command:?}: exit code {}",
            answer.exit_code
        );
        Ok(())
    }

    /// What LXC calls the pod's container, which nexcage tells with PodSandboxStatus.
    pub(crate) async fn lxc_container(&self, pod: &Pod) -> anyhow::Result<String> {
        let request = api::PodSandboxStatusRequest {
            pod_sandbox_id: pod.sandbox.clone(),
            verbose: true,
        };
        let answer = self
            .runtime
            .clone()
            .pod_sandbox_status(request)
            .await
            .context("PodSandboxStatus")?
            .into_inner();
        let info = answer.info.get("info").map_or("", String::as_str);
        let info: Value = serde_json::from_str(info).context("PodSandboxStatus has no info")?;
        let name = info["container"].as_str();
        name.map(str::to_owned)
            .with_context(|| format!("a pod without LXC container: {info}"))
    }

    /// ListContainerStats of everything; how many there are.
    pub(crate) async fn container_stats(&self) -> anyhow::Result<usize> {
        let answer = self
            .runtime
            .clone()
            .list_container_stats(api::ListContainerStatsRequest::default())
            .await
            .context("ListContainerStats")?;
        Ok(answer.into_inner().stats.len())
    }

    /// StopContainer, RemoveContainer, StopPodSandbox, RemovePodSandbox: what kubelet calls.
    pub(crate) async fn remove(&self, pod: &Pod) -> anyhow::Result<()> {
        let mut runtime = self.runtime.clone();
        let Pod {
            sandbox, container, ..
        } = pod;
        self.stop_container(container).await?;
        self.remove_container(container).await?;
        let request = api::StopPodSandboxRequest {
            pod_sandbox_id: sandbox.clone(),
        };
        runtime
            .stop_pod_sandbox(request)
            .await
            .context("StopPodSandbox")?;
        let request = api::RemovePodSandboxRequest {
            pod_sandbox_id: sandbox.clone(),
        };
        runtime
            .remove_pod_sandbox(request)
            .await
            .context("RemovePodSandbox")?;
        Ok(())
    }

    fn pod(&self, number: u32) -> api::PodSandboxConfig {
        let name = format!("bench-{number}");
        api::PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata {
                uid: format!("uid-{name}"),
                namespace: "bench".to_owned(),
                attempt: 0,
                name: name.clone(),
            }),
            log_directory: self.logs.join(&name).into_string(),
            hostname: name,
            dns_config: Some(api::DnsConfig {
                servers: vec!["10.96.0.10".to_owned()],
                ..Default::default()
            }),
            linux: Some(api::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.clone(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn container(attempt: u32) -> api::ContainerConfig {
    api::ContainerConfig {
        metadata: Some(api::ContainerMetadata {
            name: "app".to_owned(),
            attempt,
        }),
        image: Some(image_spec(stage::IMAGE)),
        command: stage::APP.map(str::to_owned).into(),
        log_path: LOG.to_owned(),
        linux: Some(api::LinuxContainerConfig::default()),
        ..Default::default()
    }
}

fn image_spec(image: &str) -> api::ImageSpec {
    api::ImageSpec {
        image: image.to_owned(),
        ..Default::default()
    }
}
