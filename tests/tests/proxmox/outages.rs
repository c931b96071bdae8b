//! The cluster loses its quorum, the API is away.

use anyhow::ensure;
use nexcage_tests::{spec, wait};

use crate::Node;
use crate::node::PATIENCE;

#[test]
fn without_quorum_pods_go_on_and_new_ones_are_refused() {
    Node::test("direct", |node| {
        let crictl = node.machine.crictl();
        let (pod, container, vmid) = node.counting("before")?;
        node.proxmox.tell("quorum off")?;

        let refused = node.machine.run_pod("without").unwrap_err().to_string();
        ensure!(
            refused.contains("Unavailable") && refused.contains("quorum"),
            "{refused}"
        );
        let proxmox = node.condition("ProxmoxReady")?;
        ensure!(
            proxmox["status"] == false && proxmox.to_string().contains("quorum"),
            "{proxmox}"
        );
        let runtime = node.condition("RuntimeReady")?;
        ensure!(runtime["status"] == true, "{runtime}");
        ensure!(
            node.machine.exec(&container, &["echo", "alive"])? == "alive",
            "a running pod does not go on"
        );
        // A pod of another backend does not care.
        let logs = node.machine.log_directory("plain")?;
        let file = node
            .machine
            .file("plain.json", &spec::pod("plain", logs.as_str()))?;
        let plain = crictl.run(&["runp", "--runtime", "lxc", &file])?;
        crictl.run(&["rmp", "--force", &plain])?;

        // It can be stopped, and what could not be removed is removed later.
        crictl.run(&["stopp", &pod.id])?;
        let removed = crictl.try_run(&["rmp", &pod.id])?;
        ensure!(
            removed.code != Some(0),
            "a removal without quorum succeeded"
        );
        ensure!(node.proxmox.conf(vmid).exists(), "how can it be gone?");
        node.proxmox.tell("quorum on")?;
        wait::until_true("the removal is finished", PATIENCE, || {
            Ok(!node.proxmox.conf(vmid).exists())
        })?;
        wait::until_true("Proxmox is ready", PATIENCE, || {
            Ok(node.condition("ProxmoxReady")?["status"] == true)
        })?;
        let (pod, ..) = node.counting("after")?;
        crictl.run(&["rmp", "--force", &pod.id]).map(drop)
    });
}

#[test]
fn without_the_api_pods_go_on_and_new_ones_are_refused() {
    Node::test("api", |node| {
        let crictl = node.machine.crictl();
        let (pod, container, _) = node.counting("before")?;
        node.proxmox.tell("api down")?;
        let refused = node.machine.run_pod("without").unwrap_err().to_string();
        ensure!(refused.contains("API"), "{refused}");
        let proxmox = node.condition("ProxmoxReady")?;
        ensure!(proxmox["status"] == false, "{proxmox}");
        ensure!(
            node.machine.exec(&container, &["echo", "alive"])? == "alive",
            "a running pod does not go on"
        );
        crictl.run(&["rmp", "--force", &pod.id])?;
        node.proxmox.tell("api up")?;
        wait::until_true("Proxmox is ready", PATIENCE, || {
            Ok(node.condition("ProxmoxReady")?["status"] == true)
        })?;
        let (pod, ..) = node.counting("after")?;
        crictl.run(&["rmp", "--force", &pod.id]).map(drop)
    });
}

#[test]
fn a_task_that_fails_or_warns_is_told_apart() {
    Node::test("api", |node| {
        node.proxmox.tell("task-result warnings")?;
        let (pod, ..) = node.counting("warned")?;
        node.machine.crictl().run(&["rmp", "--force", &pod.id])?;
        node.proxmox.tell("task-result error it is not my day")?;
        let refused = node.machine.run_pod("failed").unwrap_err().to_string();
        ensure!(refused.contains("it is not my day"), "{refused}");
        node.proxmox.tell("task-result ok")?;
        node.nothing_is_left()
    });
}
