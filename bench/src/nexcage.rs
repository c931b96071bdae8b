//! nexcage: the release build with defaults, in a place of its own.

use std::fs;
use std::net::SocketAddr;

use anyhow::Context as _;
use camino::Utf8Path;
use serde_json::{Value, json};

use crate::contender::Kind;
use crate::cri::Client;
use crate::process::Server;
use crate::stage;

/// A running daemon.
pub(crate) struct Nexcage {
    server: Server,
    pub(crate) client: Client,
}

impl Nexcage {
    /// Starts it and pulls images.
    pub(crate) async fn start(
        program: &Utf8Path,
        registry: SocketAddr,
        images: &[&str],
    ) -> anyhow::Result<Self> {
        let kind = Kind::Nexcage;
        let (root, run) = (stage::root(kind), stage::run(kind));
        let file = root.join("config.json");
        fs::write(&file, config(registry).to_string())
            .with_context(|| format!("cannot write {file}"))?;
        let log = root.join("log");
        let server = Server::start(
            program.as_str(),
            &["daemon", "--config", file.as_str()],
            &log,
        )?;
        let parent = format!("/{}-{kind}", stage::NAME);
        let socket = run.join("nexcage.sock");
        let client = Client::connect(&socket, &parent, &root.join("logs"))
            .await
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        for image in images {
            client.pull(image).await?;
        }
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

/// Everything not said is nexcage's default.
fn config(registry: SocketAddr) -> Value {
    let kind = Kind::Nexcage;
    let (root, run) = (stage::root(kind), stage::run(kind));
    let mirror = json!({ "mirrors": [format!("http://{registry}")] });
    json!({
        "lxc_path": root.join("lxc"),
        "kubernetes": { "cri_socket": run.join("nexcage.sock") },
        "lxc": { "name_prefix": format!("{}-", stage::NAME) },
        "sandbox": { "netns_dir": run.join("netns") },
        "storage": { "root": root.join("state"), "run_dir": run },
        "network": { "conf_dir": root.join("cni.d"), "plugin_dirs": ["/usr/lib/cni"] },
        "images": { "registries": { "docker.io": mirror } },
    })
}
