//! `bench node`: measuring in a node of its own, where there are ZFS, systemd and cgroup v2.
//!
//! The node has what it needs: containerd and crun are Debian's, critest and the images are on its share disk. Nothing but the
//! contenders runs in it, its own daemon neither. Only one thing is left to the caller: that nobody else uses this machine.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use camino::Utf8Path;

use super::BENCH;
use crate::node::{More, Own};
use crate::run::target_dir;

/// Begins the names of benchmarks' nodes; the number of their process follows.
const NODE: &str = "bench-";

/// Who is measured there.
const CONTENDERS: &str = "--only nexcage-zfs --only nexcage --only containerd";

/// Where numbers are kept in the node.
const RESULTS: &str = "/var/log/bench";

const MINUTE: Duration = Duration::from_secs(60);

/// Measures with the release build in `programs`; numbers go to `target/bench/node`.
pub(super) fn measure(programs: &Utf8Path, count: u16, at_once: u16) -> anyhow::Result<()> {
    let more = More {
        daemon: Some(programs.join("nexcage")),
        programs: vec![(programs.join(BENCH), BENCH)],
        ..More::default()
    };
    let results = target_dir().join("bench/node");
    for log in ["prepare", "critest", "pods"] {
        forget(&results.join(log).with_extension("log"))?;
    }
    let node = Own::start(NODE, &more, results)?;
    node.run("prepare", "systemctl stop nexcage.service", MINUTE)?;
    let contest = format!(
        "{CONTENDERS} --pool tank --containerd-runtime crun --nexcage /opt/nexcage/nexcage \
         --registry 127.0.0.1:5000 --results {RESULTS} --count {count}"
    );
    let critest = format!("critest --critest /opt/nexcage/critest {contest}");
    let pods = format!("pods --at-once {at_once} {contest}");
    // Emulated, a sample of every operation by every contender takes half a minute.
    for (name, measure, samples) in [("critest", critest, count), ("pods", pods, count + at_once)] {
        node.run(
            name,
            &format!("/opt/nexcage/{BENCH} {measure}"),
            30 * MINUTE + u32::from(samples) * 2 * MINUTE,
        )?;
    }
    node.fetch(RESULTS)?;
    println!("\nall numbers: {}", node.results());
    node.end()
}

/// Removes what an earlier run has said. Its numbers stay.
fn forget(log: &Utf8Path) -> anyhow::Result<()> {
    match fs::remove_file(log) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {log}"))
        }
        _ => Ok(()),
    }
}
