//! What tests look at on a Proxmox node: pods, their containers, and what Proxmox and nexcage show of both.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use camino::Utf8PathBuf;
use nexcage_cri_api::v1;
use nexcage_lxc::{ApiClient, ApiOptions, CtStatus, Pve as _};
use nexcage_tests::client::Client;
use nexcage_tests::{Pod, Proxmox, wait};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::Node;
use crate::node::{PATIENCE, nexcage};

pub(super) const MIB: u64 = 1 << 20;

/// More than a container has taken may count as its pod's: what its shell, the pod's first process, monitors and the kernel need.
const MORE: u64 = 40 * MIB;

/// A Proxmox node with nexcage on it.
pub(super) struct Site<'a> {
    pub(super) node: &'a Node,
    pub(super) proxmox: &'a Proxmox,
    api: ApiClient,
    runtime: Runtime,
}

/// A pod's container, as the daemon tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ct {
    pub(super) vmid: u32,
    /// Its first process.
    pub(super) init: i32,
    /// Its cgroup, where Proxmox measures it.
    pub(super) cgroup: Utf8PathBuf,
}

impl<'a> Site<'a> {
    pub(super) fn new(node: &'a Node, proxmox: &'a Proxmox) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start tokio")?;
        let options = ApiOptions {
            url: proxmox.api_url().parse()?,
            ca_file: proxmox.ca_file(),
            token_file: proxmox.token_file(),
            node: "pve1".to_owned(),
        };
        let api = runtime.block_on(async { ApiClient::new(options) })?;
        Ok(Self {
            node,
            proxmox,
            api,
            runtime,
        })
    }

    /// All that is known of a pod.
    pub(super) fn inspect(&self, pod: &Pod) -> anyhow::Result<Value> {
        self.node.crictl().json(&["inspectp", &pod.id])
    }

    /// The container of a pod that runs.
    pub(super) fn ct(&self, pod: &Pod) -> anyhow::Result<Ct> {
        let info = self.inspect(pod)?["info"].take();
        let vmid = info["container"].as_str().and_then(|n| n.parse().ok());
        let init = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let cgroup = info["cgroups"]["container"].as_str();
        let ct = vmid.zip(init).zip(cgroup).map(|((vmid, init), cgroup)| Ct {
            vmid,
            init,
            cgroup: cgroup.into(),
        });
        ct.filter(|ct| ct.init > 0)
            .with_context(|| format!("no container of a pod that runs: {info}"))
    }

    /// What Proxmox's API shows of a container.
    pub(super) fn status(&self, vmid: u32) -> anyhow::Result<CtStatus> {
        Ok(self.runtime.block_on(self.api.status(vmid))?)
    }

    /// The same twice: how many CPUs are used is measured between two questions.
    pub(super) fn status_after(&self, vmid: u32, pause: Duration) -> anyhow::Result<CtStatus> {
        self.runtime.block_on(async {
            self.api.status(vmid).await?;
            tokio::time::sleep(pause).await;
            Ok(self.api.status(vmid).await?)
        })
    }

    /// Proxmox's own keys in the configuration of a container.
    pub(super) fn conf(&self, vmid: u32) -> anyhow::Result<BTreeMap<String, String>> {
        let path = self.proxmox.conf(vmid);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let main = text.lines().take_while(|line| !line.starts_with('['));
        let keys = main.filter(|line| !line.starts_with('#'));
        let keys = keys.filter_map(|line| line.split_once(':'));
        Ok(keys
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect())
    }

    /// What `nexcage list` prints of pods that are LXC containers, by their names.
    pub(super) fn listed(&self) -> anyhow::Result<BTreeMap<String, Value>> {
        let arguments = ["list", "--all", "--runtime", "lxc", "--output", "json"];
        let rows: Value = serde_json::from_str(&nexcage(&arguments)?.success()?)?;
        let rows = rows.as_array().context("no list")?;
        Ok(rows
            .iter()
            .map(|row| {
                let name = row["name"].as_str().unwrap_or_default();
                (name.to_owned(), row.clone())
            })
            .collect())
    }

    /// Fails unless `pct list` has these containers and no others, all of them running, each by its name.
    pub(super) fn pct_lists(&self, running: &[(u32, &str)]) -> anyhow::Result<()> {
        let text = self.proxmox.pct(&["list"])?;
        let lines = text.lines().skip(1).map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.join(" ")
        });
        let mut expected: Vec<_> = running
            .iter()
            .map(|(vmid, name)| format!("{vmid} running {name}"))
            .collect();
        expected.sort();
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        ensure!(lines == expected, "not {expected:?}:\n{text}");
        Ok(())
    }

    /// UpdatePodSandboxResources.
    pub(super) fn update_pod(
        &self,
        pod: &Pod,
        resources: v1::LinuxContainerResources,
    ) -> anyhow::Result<()> {
        let request = v1::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: pod.id.clone(),
            overhead: None,
            resources: Some(resources),
        };
        self.runtime.block_on(async {
            let mut client = Client::connect_to(Node::socket()).await?;
            let updated = client.runtime.update_pod_sandbox_resources(request).await;
            updated.map(drop).context("UpdatePodSandboxResources")
        })
    }

    /// UpdateContainerResources.
    pub(super) fn update_container(
        &self,
        container: &str,
        resources: v1::LinuxContainerResources,
    ) -> anyhow::Result<()> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: container.to_owned(),
            linux: Some(resources),
            ..Default::default()
        };
        self.runtime.block_on(async {
            let mut client = Client::connect_to(Node::socket()).await?;
            let updated = client.runtime.update_container_resources(request).await;
            updated.map(drop).context("UpdateContainerResources")
        })
    }

    /// Waits until a pod is over and its container has exited.
    pub(super) fn ends(&self, pod: &Pod, container: &str) -> anyhow::Result<()> {
        wait::until_true("the pod is not ready", PATIENCE, || {
            Ok(self.inspect(pod)?["status"]["state"] == "SANDBOX_NOTREADY")
        })?;
        self.exits(container).map(drop)
    }

    /// Waits until a container has exited, and gives its code.
    pub(super) fn exits(&self, container: &str) -> anyhow::Result<Value> {
        wait::until("the container exits", PATIENCE, || {
            let mut status = self.node.status(container)?;
            let exited = status["state"] == "CONTAINER_EXITED";
            Ok(exited.then(|| status["exitCode"].take()))
        })
    }
}

/// A command that takes this much anonymous memory and no CPU, until it is killed: nobody reads what it writes.
pub(super) fn hold(bytes: u64) -> String {
    format!("dd if=/dev/zero bs={bytes} | sleep 1000")
}

/// Whether a pod uses what its container has taken.
pub(super) fn is_near(bytes: u64, taken: u64) -> bool {
    (taken..taken + MORE).contains(&bytes)
}
