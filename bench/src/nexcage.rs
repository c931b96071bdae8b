//! nexcage: the release build with defaults, in a place of its own.

use std::fs;
use std::net::SocketAddr;

use anyhow::Context as _;
use camino::Utf8Path;
use serde_json::{Value, json};

use crate::contender::Kind;
use crate::cri::Client;
use crate::dataset::Dataset;
use crate::process::Server;
use crate::stage;

/// A running daemon.
pub(crate) struct Nexcage {
    server: Server,
    pub(crate) client: Client,
    /// Where its layers are; destroyed last.
    dataset: Option<Dataset>,
}

impl Nexcage {
    /// Starts it on overlay and pulls images.
    pub(crate) async fn start(
        program: &Utf8Path,
        registry: SocketAddr,
        images: &[&str],
    ) -> anyhow::Result<Self> {
        Self::start_with(None, program, registry, images).await
    }

    /// Starts it on ZFS and pulls images.
    pub(crate) async fn start_on(
        dataset: Dataset,
        program: &Utf8Path,
        registry: SocketAddr,
        images: &[&str],
    ) -> anyhow::Result<Self> {
        Self::start_with(Some(dataset), program, registry, images).await
    }

    async fn start_with(
        dataset: Option<Dataset>,
        program: &Utf8Path,
        registry: SocketAddr,
        images: &[&str],
    ) -> anyhow::Result<Self> {
        let kind = kind_on(dataset.as_ref());
        let (root, run) = (stage::root(kind), stage::run(kind));
        let file = root.join("config.json");
        fs::write(
            &file,
            config(kind, dataset.as_ref().map(Dataset::name), registry).to_string(),
        )
        .with_context(|| format!("cannot write {file}"))?;
        let log = root.join("log");
        let server = Server::start(
            program.as_str(),
            &["daemon", "--config", file.as_str()],
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
            server,
            client,
            dataset,
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        kind_on(self.dataset.as_ref())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        drop(self.client);
        self.server.end().await?;
        self.dataset.map_or(Ok(()), Dataset::destroy)
    }
}

fn kind_on(dataset: Option<&Dataset>) -> Kind {
    match dataset {
        Some(_) => Kind::NexcageZfs,
        None => Kind::Nexcage,
    }
}

/// Everything not said is nexcage's default.
fn config(kind: Kind, dataset: Option<&str>, registry: SocketAddr) -> Value {
    let (root, run) = (stage::root(kind), stage::run(kind));
    let mirror = json!({ "mirrors": [format!("http://{registry}")] });
    let mut storage = json!({ "driver": "overlay", "root": root.join("state"), "run_dir": run });
    if let Some(dataset) = dataset {
        storage["driver"] = "zfs".into();
        storage["zfs"] = json!({ "dataset": dataset });
    }
    json!({
        "lxc_path": root.join("lxc"),
        "kubernetes": { "cri_socket": run.join("nexcage.sock") },
        "lxc": { "name_prefix": format!("{}-", stage::NAME) },
        "sandbox": { "netns_dir": run.join("netns") },
        "storage": storage,
        "network": { "conf_dir": root.join("cni.d"), "plugin_dirs": ["/usr/lib/cni"] },
        "images": { "registries": { "*": mirror } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_these() {
        let registry = "127.0.0.1:5000".parse().unwrap();
        insta::assert_json_snapshot!([
            config(Kind::Nexcage, None, registry),
            config(Kind::NexcageZfs, Some("tank/nxbench"), registry),
        ]);
    }
}
