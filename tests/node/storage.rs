//! Root filesystems on ZFS, as pods and administrators see them: limits, properties, checkpoints.

mod pool;
mod usage;

use std::time::Instant;

use anyhow::{Context as _, ensure};
use nexcage_tests::{Pod, process, spec, wait};
use serde_json::{Value, json};

use crate::node::{PATIENCE, systemctl};
use crate::{Node, settings};

/// Steps of a restore that a daemon may be killed at.
const STEPS: [&str; 7] = [
    "container.restoring",
    "container.ended-to-restore",
    "zfs.generation-row",
    "zfs.generation-cloned",
    "zfs.generation-switched",
    "container.rolled-back",
    "container.restored",
];

fn nexcage(arguments: &[&str]) -> anyhow::Result<String> {
    crate::node::nexcage(arguments)?.success()
}

fn zfs(arguments: &[&str]) -> anyhow::Result<String> {
    process::run("zfs", arguments, PATIENCE)?.success()
}

/// The dataset of a container.
fn dataset(container: &str) -> anyhow::Result<String> {
    let all = zfs(&["list", "-H", "-o", "name", "-r", "tank/nexcage/containers"])?;
    let named = all.lines().find(|name| name.contains(container));
    named
        .map(str::to_owned)
        .with_context(|| format!("{container} has no dataset: {all}"))
}

/// A property of a container's dataset, sizes in bytes.
fn property(container: &str, name: &str) -> anyhow::Result<String> {
    let dataset = dataset(container)?;
    let value = zfs(&["get", "-H", "-p", "-o", "value", name, &dataset])?;
    Ok(value.trim().to_owned())
}

/// A pod whose annotations say what its root filesystems shall be.
fn run_pod(node: &Node, name: &str, annotations: &Value) -> anyhow::Result<Pod> {
    node.run_pod_with(name, |config| config["annotations"] = annotations.clone())
}

#[test]
fn the_driver_is_zfs_and_says_why() {
    Node::test(|_| {
        let info: Value = serde_json::from_str(&nexcage(&["info", "--output", "json"])?)?;
        ensure!(info["storage_driver"] == "zfs", "{info}");
        ensure!(
            info["storage_driver_reason"]
                .as_str()
                .is_some_and(|why| !why.is_empty()),
            "{info}"
        );
        Ok(())
    });
}

#[test]
fn a_container_has_the_properties_its_pod_asks_for() {
    Node::test(|node| {
        let pod = run_pod(
            node,
            "limited",
            &json!({
                "nexcage.storage.quota": "16Mi",
                "nexcage.storage.recordsize": "8K",
                "nexcage.storage.compression": "off",
                "nexcage.storage.sync": "disabled",
            }),
        )?;
        let id = node.start(&pod, &spec::shell("db", spec::COUNT))?;
        for (name, asked) in [
            ("recordsize", "8192"),
            ("compression", "off"),
            ("sync", "disabled"),
        ] {
            let value = property(&id, name)?;
            ensure!(value == asked, "{name} is {value}");
        }

        let fill = "dd if=/dev/urandom of=/big bs=1M count=64 2>&1; rm /big; echo small >/after";
        let said = node
            .crictl()
            .run(&["exec", "--sync", &id, "sh", "-c", fill])?;
        ensure!(said.contains("quota exceeded"), "no limit: {said}");
        let written = said
            .lines()
            .find_map(|line| line.strip_suffix("+0 records out"));
        ensure!(
            written.is_some_and(|count| matches!(count.trim().parse(), Ok(12..=16))),
            "not about 16 MiB were written: {said}"
        );

        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(
            !mounts.contains(&id),
            "the root filesystem is mounted on the host"
        );
        Ok(())
    });
}

#[test]
fn an_annotation_counts_before_the_handler_and_that_before_the_configuration() {
    Node::test(|node| {
        let change = |config: &mut Value| {
            config["storage"]["rootfs"] =
                json!({ "compression": "zstd", "sync": "always", "recordsize": "64K" });
            config["runtime_handlers"] = json!({ "db": { "rootfs": { "sync": "standard", "recordsize": "16K", "quota": "8Mi" } } });
        };
        settings::with(node, change, || {
            let pod = node.run_pod_of("db", "db", |config| {
                config["annotations"] = json!({ "nexcage.storage.recordsize": "8K" });
            })?;
            let id = node.start(&pod, &spec::shell("db", spec::COUNT))?;
            for (name, expected) in [
                ("recordsize", "8192"),
                ("sync", "standard"),
                ("compression", "zstd"),
            ] {
                let value = property(&id, name)?;
                ensure!(value == expected, "{name} is {value}");
            }
            let fill = "dd if=/dev/urandom of=/big bs=1M count=32 2>&1; rm /big";
            let said = node
                .crictl()
                .run(&["exec", "--sync", &id, "sh", "-c", fill])?;
            ensure!(said.contains("quota exceeded"), "no limit: {said}");
            Ok(())
        })
    });
}

#[test]
fn what_cannot_be_is_refused() {
    Node::test(|node| {
        for (annotation, value, word) in [
            ("nexcage.storage.recordsize", "12K", "power of two"),
            ("nexcage.storage.quota", "much", "quantity"),
            ("nexcage.storage.colour", "red", "quota, recordsize"),
        ] {
            let refused = run_pod(node, "refused", &json!({ annotation: value }));
            let error = match refused {
                Ok(_) => anyhow::bail!("{annotation}={value} was accepted"),
                Err(error) => format!("{error:#}"),
            };
            ensure!(
                error.contains(word) && error.contains(annotation),
                "{error}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_checkpoint_is_gone_back_to() {
    Node::test(|node| {
        let pod = node.run_pod("checkpointed")?;
        let id = node.start(&pod, &spec::shell("db", spec::COUNT))?;
        let data = |text: &str| {
            let write = format!("echo {text} >/data");
            node.crictl()
                .run(&["exec", "--sync", &id, "sh", "-c", &write])
        };
        let read = || node.crictl().run(&["exec", "--sync", &id, "cat", "/data"]);
        // Times for whoever reads the log; emulated, they are about ten times too long.
        let timed = |arguments: &[&str]| -> anyhow::Result<String> {
            let begun = Instant::now();
            let said = nexcage(arguments)?.trim().to_owned();
            println!("{} took {:.0?}", arguments[0], begun.elapsed());
            Ok(said)
        };
        let checkpoint = || timed(&["checkpoint", &id]);
        data("one")?;

        let first = checkpoint()?;
        data("two")?;

        let second = checkpoint()?;
        data("three")?;

        let pid = node.pid(&id)?;
        ensure!(timed(&["restore", &id])? == second);
        ensure!(read()? == "two", "{}", read()?);
        ensure!(node.status(&id)?["state"] == "CONTAINER_RUNNING");
        ensure!(
            node.pid(&id)? != pid && !process::runs(pid),
            "the old process runs"
        );
        node.log_grows(&pod, "db")?;

        ensure!(timed(&["restore", &id, &first])? == first);
        ensure!(read()? == "one", "{}", read()?);
        ensure!(nexcage(&["restore", &id, &second])?.trim() == second);
        ensure!(read()? == "two", "the later checkpoint did not stay");

        let list: Value = serde_json::from_str(&nexcage(&[
            "checkpoint",
            &id,
            "--list",
            "--output",
            "json",
        ])?)?;
        let names: Vec<_> = list
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| &c["name"])
            .collect();
        ensure!(names == [&json!(first), &json!(second)], "{list}");
        nexcage(&["checkpoint", &id, "--remove", &first])?;
        let gone = nexcage(&["restore", &id, &first]);
        ensure!(gone.is_err_and(|error| format!("{error:#}").contains("does not exist")));
        ensure!(read()? == "two");
        Ok(())
    });
}

#[test]
fn a_restore_that_is_broken_off_is_finished() {
    Node::test(|node| {
        let pod = node.run_pod("broken-off")?;
        let id = node.start(&pod, &spec::shell("db", spec::COUNT))?;
        let run = |command: &str| {
            node.crictl()
                .run(&["exec", "--sync", &id, "sh", "-c", command])
        };
        run("echo one >/data")?;
        let first = nexcage(&["checkpoint", &id])?.trim().to_owned();
        for step in STEPS {
            run("echo three >/data")?;
            // A later one, so that going back takes a new generation of the dataset.
            nexcage(&["checkpoint", &id])?;
            systemctl(&["set-environment", &format!("NEXCAGE_FAILPOINT={step}")])?;
            systemctl(&["restart", "nexcage.service"])?;
            node.wait_until_it_serves()?;
            let broken = nexcage(&["restore", &id, &first]);
            systemctl(&["unset-environment", "NEXCAGE_FAILPOINT"])?;
            ensure!(broken.is_err(), "{step} is not reached");
            systemctl(&["reset-failed", "nexcage.service"])?;
            systemctl(&["restart", "nexcage.service"])?;
            node.wait_until_it_serves()?;
            wait::until_true("the container runs", PATIENCE, || {
                Ok(node.status(&id)?["state"] == "CONTAINER_RUNNING")
            })
            .with_context(|| step)?;
            let data = run("cat /data").with_context(|| step)?;
            ensure!(data == "one", "killed at {step}: {data}");
        }
        Ok(())
    });
}
