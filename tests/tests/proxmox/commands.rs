//! nexcage's own commands on a Proxmox node.

use std::fs;

use anyhow::{Context as _, ensure};
use nexcage_tests::{image, process, tools, wait};
use serde_json::Value;

use crate::Node;
use crate::node::PATIENCE;

#[test]
fn a_container_is_created_started_stopped_and_deleted_by_name() {
    Node::test("direct", |node| {
        let create = [
            "create",
            "--runtime",
            "lxc",
            "--name",
            "web",
            "--image",
            image::BUSYBOX,
        ];
        let command = ["--", "sh", "-c", "echo hello; sleep 1000 & wait"];
        node.nexcage(&[&create[..], &command[..]].concat())?;
        let vmid = vmid_of(node, "web")?;
        let logs = node.nexcage(&["logs", "--name", "web"])?;
        ensure!(logs.is_empty(), "it runs before it was started: {logs}");

        node.nexcage(&["start", "--name", "web"])?;
        wait::until_true("it says hello", PATIENCE, || {
            Ok(node.nexcage(&["logs", "--name", "web"])?.contains("hello"))
        })?;
        node.nexcage(&["stop", "--name", "web", "--timeout", "2"])?;
        node.nexcage(&["delete", "--name", "web"])?;
        ensure!(!node.proxmox.conf(vmid).exists(), "{vmid} is left");
        Ok(())
    });
}

/// The number of a pod in the list of LXC containers.
fn vmid_of(node: &Node<'_>, name: &str) -> anyhow::Result<u32> {
    let list = node.nexcage(&["list", "--all", "--runtime", "lxc", "--output", "json"])?;
    let list: Value = serde_json::from_str(&list).context("no JSON")?;
    let pods = list.as_array().into_iter().flatten();
    let pod = pods
        .into_iter()
        .find(|pod| pod["name"] == name)
        .with_context(|| format!("{name} is not listed: {list}"))?;
    let vmid = pod["container"].as_str().and_then(|vmid| vmid.parse().ok());
    vmid.with_context(|| format!("it has no VMID: {pod}"))
}

#[test]
fn the_doctor_knows_the_cluster_with_and_without_quorum() {
    Node::test("api", |node| {
        for check in [
            "proxmox packages",
            "proxmox cluster",
            "proxmox api",
            "vmids",
        ] {
            let state = finding(node, check)?;
            ensure!(state != "failed", "{check}: {state}");
        }
        node.proxmox.tell("quorum off")?;
        let state = finding(node, "proxmox cluster");
        node.proxmox.tell("quorum on")?;
        let state = state?;
        ensure!(state == "failed", "without quorum: {state}");
        node.proxmox.tell("api down")?;
        let state = finding(node, "proxmox api");
        node.proxmox.tell("api up")?;
        let state = state?;
        ensure!(state == "failed", "without the API: {state}");
        Ok(())
    });
}

#[test]
fn the_doctor_names_backup_jobs_that_would_take_pods() {
    Node::test("direct", |node| {
        let (jobs, first) = (node.proxmox.jobs_file(), node.proxmox.pods().start);
        let none = line(node, "backups")?;
        ensure!(none["state"] == "ok", "without a job: {none}");

        let vmid = node.vmid(&node.machine.run_pod("web")?)?;
        let other = first - 1;
        for (selected, is_taken) in [
            ("all 1".to_owned(), true),
            (format!("all 1\n\texclude {other}"), true),
            (format!("vmid {other},{vmid}"), true),
            (format!("vmid {other}"), false),
            ("all 1\n\tenabled 0".to_owned(), false),
            ("all 1\n\tnode elsewhere".to_owned(), false),
        ] {
            let text = format!("vzdump: nightly\n\tschedule 02:00\n\t{selected}\n\n");
            fs::write(&jobs, &text).with_context(|| format!("cannot write {jobs}"))?;
            let found = line(node, "backups")?;
            let state = if is_taken { "warning" } else { "ok" };
            let reason = found["reason"].as_str().unwrap_or_default();
            ensure!(
                found["state"] == state && reason.contains("nightly (") == is_taken,
                "{text}: {found}"
            );
        }
        fs::remove_file(&jobs).with_context(|| format!("cannot remove {jobs}"))
    });
}

/// The state of one of the doctor's checks.
fn finding(node: &Node<'_>, check: &str) -> anyhow::Result<String> {
    let line = line(node, check)?;
    Ok(line["state"].as_str().unwrap_or_default().to_owned())
}

/// What the doctor says of one check.
fn line(node: &Node<'_>, check: &str) -> anyhow::Result<Value> {
    let packages = node.machine.temporary_directory().join("dpkg");
    let packages = format!("DPKG_ADMINDIR={packages}");
    let (daemon, config) = (tools::daemon()?, node.machine.config_file());
    let doctor = [daemon.as_str(), "doctor", "--config", config.as_str()];
    let arguments = [&[packages.as_str()], &doctor[..], &["--output", "json"]].concat();
    // It fails on this machine for reasons of its own, too.
    let report = process::run("env", &arguments, 60)?.stdout;
    let report: Value = serde_json::from_str(&report).with_context(|| report.clone())?;
    let lines = report.as_array().into_iter().flatten();
    let line = lines.into_iter().find(|line| line["check"] == check);
    line.cloned()
        .with_context(|| format!("nothing of {check} in {report}"))
}
