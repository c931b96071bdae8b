//! The node that we are in.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use nexcage_tests::{Crictl, Pod, image, process, spec, wait};
use serde_json::Value;

use crate::Inventory;

/// Where tests keep what must outlive a reboot.
pub(crate) const KEPT: &str = "/var/lib/nexcage-tests";

/// Emulated, even a small command may take this many seconds.
pub(crate) const PATIENCE: u64 = 60;

/// Whether this program has made and removed a pod.
static WARM: AtomicBool = AtomicBool::new(false);

/// The daemon's service and what the tests ask of it.
pub(crate) struct Node {
    crictl: Crictl,
}

impl Node {
    /// Runs a test with a running daemon and the image of [`spec::shell`], after which no more may be there than before.
    ///
    /// # Panics
    ///
    /// If the test gives an error.
    pub(crate) fn test(test: impl FnOnce(&Self) -> anyhow::Result<()>) {
        let play = || {
            let node = if WARM.swap(true, Ordering::Relaxed) {
                Self::here()?
            } else {
                Self::warm()?
            };
            node.remove_pods()?;
            node.pull()?;
            let before = Inventory::take()?;
            test(&node)?;
            node.remove_pods()?;
            before.check()
        };
        if let Err(error) = play() {
            panic!("{error:#}");
        }
    }

    /// The node as it is.
    pub(crate) fn here() -> anyhow::Result<Self> {
        fs::create_dir_all(KEPT).with_context(|| format!("cannot make {KEPT}"))?;
        Ok(Self {
            crictl: Crictl::new(Self::socket())?,
        })
    }

    /// The node after one pod and image have come and gone: what is made once for all is there.
    pub(crate) fn warm() -> anyhow::Result<Self> {
        let node = Self::here()?;
        node.wait_until_it_serves()?;
        node.remove_everything()?;
        node.pull()?;
        let pod = node.run_pod("first")?;
        node.start(&pod, &spec::shell("first", "exit 0"))?;
        node.remove_everything()?;
        Ok(node)
    }

    pub(crate) fn socket() -> &'static Utf8Path {
        Utf8Path::new("/run/nexcage/nexcage.sock")
    }

    pub(crate) fn crictl(&self) -> &Crictl {
        &self.crictl
    }

    pub(crate) fn wait_until_it_serves(&self) -> anyhow::Result<()> {
        wait::until_true("the daemon serves", 2 * PATIENCE, || {
            Ok(self.crictl.try_run(&["version"])?.code == Some(0))
        })
    }

    /// Removes all pods and containers; images stay.
    pub(crate) fn remove_pods(&self) -> anyhow::Result<()> {
        self.crictl.run(&["rmp", "--all", "--force"])?;
        self.crictl.run(&["rm", "--all", "--force"]).map(drop)
    }

    pub(crate) fn remove_everything(&self) -> anyhow::Result<()> {
        self.crictl.remove_everything()
    }

    pub(crate) fn pull(&self) -> anyhow::Result<()> {
        self.crictl.run(&["pull", image::BUSYBOX]).map(drop)
    }

    pub(crate) fn run_pod(&self, name: &str) -> anyhow::Result<Pod> {
        self.run_pod_with(name, |_| {})
    }

    /// The same with a configuration that is changed first.
    pub(crate) fn run_pod_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<Pod> {
        self.run_pod_of("", name, change)
    }

    /// The same for a runtime handler.
    pub(crate) fn run_pod_of(
        &self,
        handler: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<Pod> {
        let logs = Utf8PathBuf::from(format!("/var/log/pods/{name}"));
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {logs}"))?;
        let mut config = spec::pod(name, logs.as_str());
        change(&mut config);
        let file = write(&format!("pod-{name}"), &config)?;
        let id = self.crictl.run(&["runp", "--runtime", handler, &file])?;
        Ok(Pod { id, file, logs })
    }

    /// Creates and starts a container in a pod and gives its id.
    pub(crate) fn start(&self, pod: &Pod, config: &Value) -> anyhow::Result<String> {
        let name = config["metadata"]["name"].as_str().unwrap_or_default();
        let file = write(&format!("container-{name}"), config)?;
        let create = ["create", "--no-pull", &pod.id, &file, &pod.file];
        let id = self.crictl.run(&create)?;
        self.crictl.run(&["start", &id])?;
        Ok(id)
    }

    /// The `status` of a container.
    pub(crate) fn status(&self, id: &str) -> anyhow::Result<Value> {
        Ok(self.crictl.json(&["inspect", id])?["status"].take())
    }

    /// The number of a container's first process.
    pub(crate) fn pid(&self, id: &str) -> anyhow::Result<i32> {
        pid_in(&self.crictl.json(&["inspect", id])?)
    }

    /// The number of the init of a pod's LXC container.
    pub(crate) fn init(&self, pod: &Pod) -> anyhow::Result<i32> {
        pid_in(&self.crictl.json(&["inspectp", &pod.id])?)
    }

    /// Fails unless a container's log grows.
    pub(crate) fn log_grows(&self, pod: &Pod, container: &str) -> anyhow::Result<()> {
        let path = pod.logs.join(format!("{container}.log"));
        let size = || {
            let file = fs::metadata(&path).with_context(|| format!("cannot look at {path}"))?;
            anyhow::Ok(file.len())
        };
        let before = size()?;
        wait::until_true("the log grows", PATIENCE, || Ok(size()? > before))
    }
}

/// The AppArmor profile of a process, and its mode.
pub(crate) fn label_of(pid: i32) -> anyhow::Result<String> {
    let file = format!("/proc/{pid}/attr/current");
    let label = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    Ok(label.trim().to_owned())
}

/// The process that the answer to an inspection names.
fn pid_in(answer: &Value) -> anyhow::Result<i32> {
    let pid = answer["info"]["pid"].as_i64();
    pid.and_then(|pid| i32::try_from(pid).ok())
        .with_context(|| format!("no pid in the info: {}", answer["info"]))
}

/// A property of a unit, as systemd writes it.
pub(crate) fn property(unit: &str, name: &str) -> anyhow::Result<String> {
    let arguments = ["show", "--value", "--property", name, unit];
    let value = process::run("systemctl", &arguments, PATIENCE)?.success()?;
    Ok(value.trim().to_owned())
}

pub(crate) fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    process::run("systemctl", arguments, 3 * PATIENCE)?
        .success()
        .map(drop)
}

/// nexcage's own command line, however it ends.
pub(crate) fn nexcage(arguments: &[&str]) -> anyhow::Result<process::Output> {
    process::run("nexcage", arguments, 3 * PATIENCE)
}

/// The daemon's process.
pub(crate) fn daemon() -> anyhow::Result<i32> {
    let pid = property("nexcage.service", "MainPID")?.parse()?;
    ensure!(pid > 0, "the daemon does not run");
    Ok(pid)
}

/// Writes a configuration for crictl.
fn write(name: &str, content: &Value) -> anyhow::Result<String> {
    let path = format!("/run/nexcage-tests/{name}.json");
    fs::create_dir_all("/run/nexcage-tests")
        .and_then(|()| fs::write(&path, content.to_string()))
        .with_context(|| format!("cannot write {path}"))?;
    Ok(path)
}
