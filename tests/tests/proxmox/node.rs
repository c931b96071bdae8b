//! A Proxmox node with nexcage on it.

use std::fs;

use anyhow::{Context as _, ensure};
use nexcage_tests::leak::Baseline;
use nexcage_tests::{Daemon, Foreign, Machine, Pod, Proxmox, process, spec, tools, wait};
use serde_json::Value;

/// Milliseconds between two looks of the daemon at what others made of its containers.
const HASTE: u32 = 300;

/// Seconds until the daemon has seen what was done to a container.
pub(crate) const PATIENCE: u64 = 20;

/// Where Proxmox, and so the simulator, keeps what `lxc-start` says.
const MESSAGES: &str = "/run/pve";

/// A machine that is a Proxmox node, with a daemon whose pods are its containers.
pub(crate) struct Node<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) proxmox: &'a Proxmox,
    /// Somebody else's containers.
    pub(crate) foreign: &'a Foreign<'a>,
    baseline: Baseline,
    _daemon: Daemon,
}

impl Node<'_> {
    /// Runs a test on a node of its own, after which nothing of a pod may be left, and foreign containers are as they were.
    pub(crate) fn test(start: &str, test: impl FnOnce(&Node<'_>) -> anyhow::Result<()>) {
        Machine::test(|machine| {
            let proxmox = Proxmox::start(machine)?;
            machine.write_config(&proxmox.config(start)?)?;
            let foreign = Foreign::place(&proxmox)?;
            let daemon = machine.start_daemon_in_haste(HASTE)?;
            machine.warm_up()?;
            machine.pull_busybox()?;
            let node = Node {
                machine,
                proxmox: &proxmox,
                foreign: &foreign,
                baseline: Baseline::take(machine).beside(&foreign.processes()),
                _daemon: daemon,
            };
            test(&node)?;
            machine.crictl().run(&["rmp", "--all", "--force"])?;
            node.nothing_is_left()?;
            drop(node);
            foreign.remove()
        });
    }

    /// Fails if more is there than before the test, or somebody else's container was touched.
    pub(crate) fn nothing_is_left(&self) -> anyhow::Result<()> {
        self.baseline.check(self.machine)?;
        self.foreign.check()?;
        self.no_messages_are_left()
    }

    /// Proxmox keeps what is said while it starts a container, in a directory of the whole machine.
    fn no_messages_are_left(&self) -> anyhow::Result<()> {
        let foreign = self.foreign.numbers();
        let pods = self.proxmox.pods();
        let number = |name: &str| -> Option<u32> {
            let (vmid, _) = name.strip_prefix("ct-")?.split_once('.')?;
            vmid.parse().ok()
        };
        let entries = fs::read_dir(MESSAGES).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let left: Vec<String> = names
            .filter(|name| number(name).is_some_and(|n| pods.contains(&n) && !foreign.contains(&n)))
            .collect();
        ensure!(left.is_empty(), "left in {MESSAGES}: {left:?}");
        Ok(())
    }

    /// A pod with a container that counts, the container's id and its number in Proxmox.
    pub(crate) fn counting(&self, name: &str) -> anyhow::Result<(Pod, String, u32)> {
        let pod = self.machine.run_pod(name)?;
        let container = self
            .machine
            .start(&pod, &spec::shell("counter", spec::COUNT))?;
        let vmid = self.vmid(&pod)?;
        Ok((pod, container, vmid))
    }

    /// A pod's number.
    pub(crate) fn vmid(&self, pod: &Pod) -> anyhow::Result<u32> {
        let info = self.inspect(&pod.id)?["info"].take();
        let number = info["container"].as_str().and_then(|n| n.parse().ok());
        number.with_context(|| format!("a pod has no VMID: {info}"))
    }

    pub(crate) fn inspect(&self, pod: &str) -> anyhow::Result<Value> {
        self.machine.crictl().json(&["inspectp", pod])
    }

    /// Waits until the daemon knows that a pod has ended, and its containers with it.
    pub(crate) fn ends(&self, pod: &Pod, container: &str) -> anyhow::Result<()> {
        wait::until_true("the pod is not ready", PATIENCE, || {
            Ok(self.inspect(&pod.id)?["status"]["state"] == "SANDBOX_NOTREADY")
        })?;
        wait::until_true("its container has exited", PATIENCE, || {
            let status = self.machine.container_status(container)?;
            Ok(status["state"] == "CONTAINER_EXITED")
        })
    }

    /// A condition of the runtime, by name.
    pub(crate) fn condition(&self, name: &str) -> anyhow::Result<Value> {
        let info = self.machine.crictl().json(&["info"])?;
        let conditions = info["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == name)
            .cloned()
            .with_context(|| format!("no condition {name}: {info}"))
    }

    /// nexcage's own command line.
    pub(crate) fn nexcage(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let socket = self.machine.socket();
        let all = [&["--socket", socket.as_str()], arguments].concat();
        process::run(tools::daemon()?.as_str(), &all, 60)?.success()
    }
}
