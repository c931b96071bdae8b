//! What an administrator sees of pods, and does to them.

use std::fs;

use anyhow::{Context as _, ensure};
use nexcage_tests::wait;
use serde_json::Value;

use crate::Node;
use crate::node::PATIENCE;

#[test]
fn a_pod_is_a_container_with_its_name_and_number() {
    for start in ["direct", "api"] {
        Node::test(start, |node| {
            let (pod, _, vmid) = node.counting("seen")?;
            let list = node.proxmox.pct(&["list"])?;
            let line = list
                .lines()
                .find(|line| line.starts_with(&vmid.to_string()))
                .with_context(|| format!("{vmid} is not listed:\n{list}"))?;
            ensure!(
                line.contains("running") && line.trim_end().ends_with("seen"),
                "{line}"
            );

            let conf = node.proxmox.pct(&["config", &vmid.to_string()])?;
            for word in ["hostname: seen", "protection: 1", "tags: k8s;nexcage;nxt"] {
                ensure!(conf.contains(word), "no {word:?} in\n{conf}");
            }
            let listed = node.nexcage(&["list", "--runtime", "lxc", "--output", "json"])?;
            let listed: Value = serde_json::from_str(&listed)?;
            ensure!(
                listed.to_string().contains(&vmid.to_string())
                    && listed.to_string().contains(&pod.id),
                "{listed}"
            );
            Ok(())
        });
    }
}

#[test]
fn stopping_and_shutting_down_ends_the_pod() {
    for start in ["direct", "api"] {
        Node::test(start, |node| {
            for command in ["stop", "shutdown"] {
                let (pod, container, vmid) = node.counting(command)?;
                let number = vmid.to_string();
                node.proxmox.pct(&[command, &number])?;
                node.ends(&pod, &container)?;
                // Its pod is over: nobody can start it.
                let started = node.proxmox.try_pct(&["start", &number])?;
                ensure!(started.code != Some(0), "it was started again");
                let status = node.proxmox.pct(&["status", &number])?;
                ensure!(status.trim() == "status: stopped", "{status}");
                node.machine.crictl().run(&["rmp", "--force", &pod.id])?;
                ensure!(!node.proxmox.conf(vmid).exists(), "{vmid} is left");
            }
            Ok(())
        });
    }
}

#[test]
fn destroying_is_refused_and_ends_the_pod_if_it_is_forced() {
    Node::test("direct", |node| {
        let (pod, container, vmid) = node.counting("destroyed")?;
        let number = vmid.to_string();
        let refused = node.proxmox.try_pct(&["destroy", &number, "--force"])?;
        ensure!(
            refused.code != Some(0),
            "a protected container was destroyed"
        );
        let state = node.inspect(&pod.id)?["status"]["state"].take();
        ensure!(state == "SANDBOX_READY", "{state}");

        node.proxmox.pct(&["set", &number, "--protection", "0"])?;
        node.proxmox.pct(&["destroy", &number, "--force"])?;
        node.ends(&pod, &container)
    });
}

#[test]
fn a_configuration_that_is_removed_or_replaced_ends_the_pod() {
    Node::test("direct", |node| {
        let (pod, container, vmid) = node.counting("removed")?;
        let conf = node.proxmox.conf(vmid);
        fs::remove_file(&conf).with_context(|| format!("cannot remove {conf}"))?;
        node.ends(&pod, &container)?;

        let (pod, container, vmid) = node.counting("replaced")?;
        let conf = node.proxmox.conf(vmid);
        let foreign = "arch: amd64\nhostname: other\ntags: nexcage\n";
        fs::write(&conf, foreign).with_context(|| format!("cannot write {conf}"))?;
        node.ends(&pod, &container)?;
        node.machine.crictl().run(&["rmp", "--force", &pod.id])?;
        let text = fs::read_to_string(&conf).context("somebody else's container is gone")?;
        ensure!(text == foreign, "it was touched:\n{text}");
        fs::remove_file(&conf).with_context(|| format!("cannot remove {conf}"))?;
        // What is there belongs to whoever has the number now.
        let directory = node.machine.lxc_dir().join(vmid.to_string());
        fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {directory}"))
    });
}

#[test]
fn an_edit_is_reported_and_neither_undone_nor_believed() {
    Node::test("direct", |node| {
        let (pod, _, vmid) = node.counting("edited")?;
        let number = vmid.to_string();
        node.proxmox.pct(&["set", &number, "--memory", "1234"])?;
        wait::until_true("the edit is reported", PATIENCE, || {
            let edits = node.inspect(&pod.id)?["info"]["edits"].take();
            let found = edits.as_array().into_iter().flatten();
            Ok(found
                .into_iter()
                .any(|edit| edit["key"] == "memory" && edit["theirs"] == "1234"))
        })?;
        let conf = node.proxmox.pct(&["config", &number])?;
        ensure!(conf.contains("memory: 1234"), "it was undone:\n{conf}");
        let state = node.inspect(&pod.id)?["status"]["state"].take();
        ensure!(state == "SANDBOX_READY", "{state}");
        // Proxmox has written LXC's configuration anew, and still finds out how to stop it.
        node.proxmox
            .pct(&["shutdown", &number, "--timeout", "20"])?;
        Ok(())
    });
}

#[test]
fn several_containers_come_and_go_in_one() {
    Node::test("direct", |node| {
        let (pod, first, vmid) = node.counting("several")?;
        let crictl = node.machine.crictl();
        for name in ["second", "third"] {
            let config = nexcage_tests::spec::shell(name, nexcage_tests::spec::COUNT);
            let id = node.machine.start(&pod, &config)?;
            crictl.run(&["stop", "--timeout", "5", &id])?;
            crictl.run(&["rm", &id])?;
            ensure!(node.vmid(&pod)? == vmid, "the container was made anew");
        }
        let status = node.machine.container_status(&first)?;
        ensure!(status["state"] == "CONTAINER_RUNNING", "{status}");
        let running = node.proxmox.pct(&["status", &vmid.to_string()])?;
        ensure!(running.trim() == "status: running", "{running}");
        Ok(())
    });
}
