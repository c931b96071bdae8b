//! What kubelet is told of the use of a pool, and what asking costs.

use std::fs;
use std::thread::park_timeout;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use camino::Utf8Path;
use nexcage_tests::{process, spec, wait};
use serde_json::Value;

use super::zfs;
use crate::Node;
use crate::node::PATIENCE;

const MIB: u64 = 1 << 20;

/// Containers of the test.
const CONTAINERS: usize = 6;

/// A trace of the test's own; see the kernel's `Documentation/trace/ftrace.rst`.
const TRACE: &str = "/sys/kernel/tracing/instances/nexcage-tests";

#[test]
fn usage_is_true_and_costs_one_zfs() {
    Node::test(|node| {
        let pod = node.run_pod("used")?;
        let mut ids = Vec::new();
        for number in 0..CONTAINERS {
            ids.push(node.start(&pod, &spec::shell(&format!("app{number}"), spec::COUNT))?);
        }
        let write = "dd if=/dev/urandom of=/big bs=1M count=8; \
                     n=0; while [ $n -lt 30 ]; do n=$((n+1)); echo >/f$n; done";
        let exec = ["exec", "--sync", &ids[0], "sh", "-c", write];
        node.crictl().run(&exec)?;
        process::run("zpool", &["sync", "tank"], PATIENCE)?.success()?;

        // What was listed before may be told for some seconds.
        let (bytes, inodes) = wait::until("the usage is told", PATIENCE, || {
            let used = writable_layer(node, &ids[0])?;
            Ok((used.0 >= 8 * MIB).then_some(used))
        })?;
        ensure!(bytes < 10 * MIB, "{bytes} bytes instead of 8 MiB");
        // The files above, and some mount points.
        ensure!((31..61).contains(&inodes), "{inodes} inodes");
        let other = writable_layer(node, &ids[1])?;
        ensure!(
            other.0 < MIB && other.1 < 30,
            "a container that wrote nothing: {other:?}"
        );
        the_file_systems_are_as_zfs_says(node)?;

        // As long as kubelet waits between two questions, and longer than an answer is good for.
        park_timeout(Duration::from_secs(10));
        // crictl asks twice, for the use of CPUs.
        let started = zfs_started(|| node.crictl().run(&["stats", "--all"]).map(drop))?;
        // The comparison of the records with the pool, every ten minutes, takes two more.
        ensure!(
            (1..=4).contains(&started),
            "{started} zfs for two questions about {CONTAINERS} containers"
        );
        Ok(())
    });
}

/// Bytes and inodes that a container has written.
fn writable_layer(node: &Node, id: &str) -> anyhow::Result<(u64, u64)> {
    let stats = node.crictl().json(&["stats", "-o", "json", "--id", id])?;
    let layer = &stats["stats"][0]["writableLayer"];
    let of = |name: &str| number(&layer[name]["value"]);
    of("usedBytes")
        .zip(of("inodesUsed"))
        .with_context(|| format!("no writable layer in {stats}"))
}

/// Protobuf's JSON has numbers of 64 bits as text.
fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

fn the_file_systems_are_as_zfs_says(node: &Node) -> anyhow::Result<()> {
    let answer = node.crictl().json(&["imagefsinfo"])?;
    let mounts = fs::read_to_string("/proc/1/mountinfo").context("cannot read the mounts")?;
    for (kind, dataset) in [
        ("imageFilesystems", "images"),
        ("containerFilesystems", "containers"),
    ] {
        let told = &answer["status"][kind][0];
        let used = number(&told["usedBytes"]["value"])
            .with_context(|| format!("no {kind} in {answer}"))?;
        let dataset = format!("tank/nexcage/{dataset}");
        let truth: u64 = zfs(&["get", "-H", "-p", "-o", "value", "used", &dataset])?
            .trim()
            .parse()
            .context("what zfs says")?;
        ensure!(
            used.abs_diff(truth) < 2 * MIB,
            "{dataset} uses {truth} bytes, kubelet is told {used}"
        );
        let point = told["fsId"]["mountpoint"].as_str().unwrap_or_default();
        ensure!(
            mounts.lines().any(
                |line| line.split(' ').nth(4) == Some(point) && line.contains(" tank/nexcage/")
            ),
            "{point:?} is no mount of the pool"
        );
    }
    Ok(())
}

/// How often `zfs` is started meanwhile, by whomever.
fn zfs_started(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<usize> {
    let trace = Utf8Path::new(TRACE);
    fs::create_dir(trace).with_context(|| format!("cannot make {trace}"))?;
    let watched = fs::write(trace.join("events/sched/sched_process_exec/enable"), "1")
        .context("cannot watch programs start")
        .and_then(|()| work())
        .and_then(|()| fs::read_to_string(trace.join("trace")).context("cannot read the trace"));
    fs::remove_dir(trace).with_context(|| format!("cannot remove {trace}"))?;
    let text = watched?;
    Ok(text
        .lines()
        .filter(|line| line.contains("/zfs pid="))
        .count())
}
