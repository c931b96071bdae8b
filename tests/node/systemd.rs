//! The daemon under systemd: it is killed, restarted and told to read its configuration, systemd reads its own, and
//! pods go on.

use std::fs;

use anyhow::{Context as _, ensure};
use nexcage_tests::{Pod, process, spec, wait};
use serde_json::json;

use crate::Node;
use crate::node::{PATIENCE, daemon, label_of, property, systemctl};
use crate::settings::CONFIG;

/// A pod with a container that counts, and that container's process.
pub(crate) fn counting(node: &Node, name: &str) -> anyhow::Result<(Pod, String, i32)> {
    let pod = node.run_pod(name)?;
    let container = node.start(&pod, &spec::shell("counter", spec::COUNT))?;
    let pid = node.pid(&container)?;
    Ok((pod, container, pid))
}

/// Fails unless the container of [`counting`] is as it was, and can be used.
pub(crate) fn goes_on(
    node: &Node,
    (pod, container, pid): &(Pod, String, i32),
) -> anyhow::Result<()> {
    ensure!(process::runs(*pid), "the container has ended");
    node.wait_until_it_serves()?;
    let status = node.status(container)?;
    ensure!(status["state"] == "CONTAINER_RUNNING", "{status}");
    ensure!(node.pid(container)? == *pid, "it is another process");
    node.log_grows(pod, "counter")?;
    let said = node
        .crictl()
        .run(&["exec", "--sync", container, "echo", "alive"])?;
    ensure!(said == "alive", "exec does not work: {said}");
    Ok(())
}

#[test]
fn pods_outlive_a_killed_daemon() {
    Node::test(|node| {
        let counting = counting(node, "survivor")?;
        let ending = node.start(&counting.0, &spec::shell("ending", "sleep 2; exit 7"))?;
        let first = daemon()?;
        process::kill(first);
        wait::until_true("systemd starts it again", 2 * PATIENCE, || {
            Ok(daemon().is_ok_and(|pid| pid != first))
        })?;
        goes_on(node, &counting)?;
        wait::until_true("one container exits", PATIENCE, || {
            Ok(node.status(&ending)?["state"] == "CONTAINER_EXITED")
        })?;
        let status = node.status(&ending)?;
        ensure!(status["exitCode"] == 7, "the exit code is lost: {status}");
        Ok(())
    });
}

#[test]
fn pods_outlive_a_restart_of_the_service() {
    Node::test(|node| {
        let counting = counting(node, "restarted")?;
        systemctl(&["restart", "nexcage.service"])?;
        goes_on(node, &counting)?;
        systemctl(&["stop", "nexcage.service"])?;
        ensure!(
            process::runs(counting.2),
            "the container ended with the service"
        );
        systemctl(&["start", "nexcage.service"])?;
        goes_on(node, &counting)
    });
}

#[test]
fn systemd_leaves_pods_alone_when_it_reads_its_units_again() {
    Node::test(|node| {
        let pod = node.run_pod("limited")?;
        let mut config = spec::shell("counter", spec::COUNT);
        config["linux"]["resources"] =
            json!({ "memory_limit_in_bytes": 64 << 20, "cpu_quota": 50000, "cpu_period": 100_000 });
        let container = node.start(&pod, &config)?;
        let pid = node.pid(&container)?;
        let scope = format!("nexcage-{}.scope", pod.id);
        ensure!(
            property(&scope, "ActiveState")? == "active",
            "{scope} is not active"
        );
        // Its parent was left to nexcage.
        let slice = property(&scope, "Slice")?;
        ensure!(slice == "nexcage.slice", "{scope} is in {slice}");
        let limits = limits(pid)?;
        ensure!(
            limits == ["67108864", "50000 100000"],
            "not the limits that were asked for: {limits:?}"
        );
        systemctl(&["daemon-reload"])?;
        systemctl(&["daemon-reexec"])?;
        ensure!(
            self::limits(pid)? == limits,
            "the limits were changed: {:?}",
            self::limits(pid)?
        );
        ensure!(
            property(&scope, "ActiveState")? == "active",
            "{scope} is not active any more"
        );
        goes_on(node, &(pod, container, pid))
    });
}

/// `memory.max` and `cpu.max` of a process's cgroup.
fn limits(pid: i32) -> anyhow::Result<[String; 2]> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let cgroup = text
        .trim()
        .strip_prefix("0::")
        .with_context(|| format!("not cgroup v2: {text}"))?
        .to_owned();
    let read = |name: &str| {
        let path = format!("/sys/fs/cgroup{cgroup}/{name}");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        anyhow::Ok(text.trim().to_owned())
    };
    Ok([read("memory.max")?, read("cpu.max")?])
}

#[test]
fn pods_and_containers_are_confined_by_apparmor() {
    Node::test(|node| {
        let (pod, _, pid) = counting(node, "confined")?;
        for (pid, expected) in [
            (node.init(&pod)?, "lxc-container-nexcage (enforce)"),
            (pid, "nexcage-default (enforce)"),
        ] {
            let profile = label_of(pid)?;
            ensure!(profile == expected, "the profile is {profile}");
        }
        Ok(())
    });
}

#[test]
fn the_configuration_is_read_again_on_sighup() {
    Node::test(|node| {
        let counting = counting(node, "reloaded")?;
        let first = daemon()?;
        let before = fs::read_to_string(CONFIG).with_context(|| format!("cannot read {CONFIG}"))?;
        let reloaded = with_config(&before.replace(r#""debug""#, r#""info""#), "info");
        // A bad file changes nothing.
        let refused = with_config("{ \"logging\": 7 }", "refused");
        let restored = with_config(&before, "debug");
        reloaded.context("a new level")?;
        refused.context("a bad file")?;
        restored.context("the old level")?;
        ensure!(daemon()? == first, "it was restarted");
        goes_on(node, &counting)
    });
}

/// Writes the configuration, sends SIGHUP and waits until the journal has a new line of the daemon with `word`.
fn with_config(content: &str, word: &str) -> anyhow::Result<()> {
    fs::write(CONFIG, content).with_context(|| format!("cannot write {CONFIG}"))?;
    let count = || {
        let unit = ["--unit", "nexcage", "--output", "cat", "--no-pager"];
        let text = process::run("journalctl", &unit, PATIENCE)?.success()?;
        let about = ["configuration reloaded", "the new configuration is refused"];
        let lines = text
            .lines()
            .filter(|line| about.iter().any(|a| line.contains(a)));
        anyhow::Ok(lines.filter(|line| line.contains(word)).count())
    };
    let before = count()?;
    systemctl(&[
        "kill",
        "--kill-whom=main",
        "--signal=HUP",
        "nexcage.service",
    ])?;
    wait::until_true("the daemon tells of it", PATIENCE, || Ok(count()? > before))
}
