//! containerd, as Debian packages it, in a place of its own.

use std::fs;
use std::net::SocketAddr;

use anyhow::Context as _;

use crate::contender::Kind;
use crate::cri::Client;
use crate::process::Server;
use crate::stage;

/// The image of its sandboxes; the registry is a mirror of registry.k8s.io.
const PAUSE: &str = "registry.k8s.io/pause:3.9";

/// Directory with what is said of registries, and its file about all that have none of their own.
const CERTS: &str = "certs.d";
const HOSTS: &str = "certs.d/_default/hosts.toml";

/// A running containerd.
pub(crate) struct Containerd {
    server: Server,
    pub(crate) client: Client,
}

impl Containerd {
    /// Starts it, with the OCI runtime of this name, and pulls what pods need.
    pub(crate) async fn start(
        runtime: &str,
        registry: SocketAddr,
        images: &[&str],
    ) -> anyhow::Result<Self> {
        let kind = Kind::Containerd;
        let (root, run) = (stage::root(kind), stage::run(kind));
        let file = root.join("config.toml");
        fs::write(&file, config(runtime, stage::systemd()))
            .with_context(|| format!("cannot write {file}"))?;
        let hosts = root.join(HOSTS);
        fs::create_dir_all(hosts.parent().unwrap_or(&root))
            .and_then(|()| fs::write(&hosts, mirror(registry)))
            .with_context(|| format!("cannot write {hosts}"))?;
        let server = Server::start(
            "containerd",
            &["--config", file.as_str()],
            &[],
            &root.join("log"),
        )?;
        let socket = run.join("containerd.sock");
        let client = Client::connect(&socket, kind).await?;
        for image in images {
            client.pull(image).await?;
        }
        client.pull(PAUSE).await?;
        Ok(Self { server, client })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        drop(self.client);
        self.server.end().await
    }
}

/// Everything not said is containerd's default. Pods get their cgroups from systemd where kubelet would say so. Without `restrict_oom_score_adj` there are no pods where root has no
/// `CAP_SYS_RESOURCE`, such as inside of a container.
fn config(runtime: &str, systemd: bool) -> String {
    let kind = Kind::Containerd;
    let (root, run) = (stage::root(kind), stage::run(kind));
    format!(
        r#"version = 2
root = "{root}/data"
state = "{run}/state"

[grpc]
address = "{run}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "{root}/cni.d"
bin_dir = "/usr/lib/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runtime}"
SystemdCgroup = {systemd}

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{root}/{CERTS}"
"#
    )
}

/// All registries are asked there.
fn mirror(registry: SocketAddr) -> String {
    format!("[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_these() {
        let registry = "127.0.0.1:5000".parse().unwrap();
        insta::assert_snapshot!(format!("{}\n{}", config("crun", true), mirror(registry)));
    }
}
