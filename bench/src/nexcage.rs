//! nexcage: the release build with defaults, in a place of its own.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use camino::Utf8Path;
use serde_json::{Value, json};

use crate::contender::Kind;
use crate::cri::Client;
use crate::dataset::Dataset;
use crate::process::Server;
use crate::proxmox::Node;
use crate::stage;

/// A running daemon.
pub(crate) struct Nexcage {
    kind: Kind,
    server: Server,
    pub(crate) client: Client,
    /// Taken away last.
    ground: Ground,
}

/// What a daemon is made to use.
pub(crate) enum Ground {
    /// overlayfs and plain LXC.
    Plain,
    /// A dataset for its layers.
    Zfs(Dataset),
    /// A node of Proxmox for its pods.
    Proxmox(Node),
}

impl Ground {
    /// What it says in the daemon's configuration.
    fn sections(&self, kind: Kind) -> anyhow::Result<Value> {
        match self {
            Self::Plain => Ok(json!({})),
            Self::Zfs(dataset) => Ok(on_zfs(dataset.name())),
            Self::Proxmox(node) => {
                let start = kind.proxmox_start();
                node.config(start.with_context(|| format!("{kind} has no start mode"))?)
            }
        }
    }
}

impl Nexcage {
    /// Starts it and pulls images.
    pub(crate) async fn start(
        kind: Kind,
        ground: Ground,
        program: &Utf8Path,
        registry: SocketAddr,
        images: &[&str],
    ) -> anyhow::Result<Self> {
        let (root, run) = (stage::root(kind), stage::run(kind));
        let file = root.join("config.json");
        let config = config(kind, &ground.sections(kind)?, registry);
        fs::write(&file, config.to_string()).with_context(|| format!("cannot write {file}"))?;
        let environment = match &ground {
            Ground::Proxmox(node) => vec![node.variable()],
            Ground::Plain | Ground::Zfs(_) => Vec::new(),
        };
        let log = root.join("log");
        let server = Server::start(
            program.as_str(),
            &["daemon", "--config", file.as_str()],
            &environment,
            &log,
        )?;
        let socket = run.join("nexcage.sock");
        let client = Client::connect(&socket, kind)
            .await
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        for image in images {
            client.pull(image).await?;
        }
        Ok(Self {
            kind,
            server,
            client,
            ground,
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// How long Proxmox's tasks took that have started containers since then.
    pub(crate) fn tasks_since(&self, time: SystemTime) -> anyhow::Result<Vec<Duration>> {
        match &self.ground {
            Ground::Proxmox(node) => node.starts_since(time),
            Ground::Plain | Ground::Zfs(_) => Ok(Vec::new()),
        }
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        drop(self.client);
        self.server.end().await?;
        match self.ground {
            Ground::Zfs(dataset) => dataset.destroy(),
            Ground::Plain | Ground::Proxmox(_) => Ok(()),
        }
    }
}

fn on_zfs(dataset: &str) -> Value {
    json!({ "storage": { "driver": "zfs", "zfs": { "dataset": dataset } } })
}

/// Everything not said here or in `sections` is nexcage's default.
fn config(kind: Kind, sections: &Value, registry: SocketAddr) -> Value {
    let (root, run) = (stage::root(kind), stage::run(kind));
    let mirror = json!({ "mirrors": [format!("http://{registry}")] });
    let mut config = json!({
        "lxc_path": stage::lxc_path(kind),
        "kubernetes": { "cri_socket": run.join("nexcage.sock") },
        // Its own: a daemon removes what carries its prefix and is of no pod that it knows.
        "lxc": { "name_prefix": format!("{}{}-", stage::NAME, kind.index()) },
        "sandbox": { "netns_dir": run.join("netns") },
        "storage": { "driver": "overlay", "root": root.join("state"), "run_dir": run },
        "network": { "conf_dir": root.join("cni.d"), "plugin_dirs": ["/usr/lib/cni"] },
        "images": { "registries": { "*": mirror } },
    });
    for (name, section) in sections.as_object().into_iter().flatten() {
        match (config[name].as_object_mut(), section.as_object()) {
            (Some(keys), Some(more)) => keys.extend(more.clone()),
            _ => config[name] = section.clone(),
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox;

    #[test]
    fn configurations_are_these() {
        let registry = "127.0.0.1:5000".parse().unwrap();
        insta::assert_json_snapshot!([
            config(Kind::Nexcage, &json!({}), registry),
            config(Kind::NexcageZfs, &on_zfs("tank/nxbench"), registry),
        ]);
    }

    #[test]
    fn configurations_on_proxmox_are_these() {
        let registry = "127.0.0.1:5000".parse().unwrap();
        insta::assert_json_snapshot!([Kind::NexcageProxmox, Kind::NexcageProxmoxApi].map(|kind| {
            let start = kind.proxmox_start().unwrap();
            let sections = proxmox::place(kind).config(start, 8006, 1_000_000..1_001_000);
            config(kind, &sections, registry)
        }));
    }
}
