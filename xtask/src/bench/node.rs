//! `bench node`: measuring in a node of its own, where there are ZFS, systemd and cgroup v2.
//!
//! The node has what it needs: containerd and crun are Debian's, critest and the images are on its share disk. Nothing but the
//! contenders runs in it, its own daemon neither. Only one thing is left to the caller: that nobody else uses this machine.

use std::time::Duration;

use camino::Utf8Path;

use super::BENCH;
use crate::files::remove_file;
use crate::node::{More, Own};
use crate::run::target_dir;

/// Begins the names of benchmarks' nodes; the number of their process follows.
const NODE: &str = "bench-";

/// What is measured there, each by a run of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Benchmark {
    Critest,
    Pods,
    Checkpoints,
}

/// Who is measured there by the first two.
const CONTENDERS: &str = "--only nexcage-zfs --only nexcage --only containerd";

/// Where numbers are kept in the node.
const RESULTS: &str = "/var/log/bench";

const MINUTE: Duration = Duration::from_secs(60);

impl Benchmark {
    const ALL: [Self; 3] = [Self::Critest, Self::Pods, Self::Checkpoints];

    /// Also of its log.
    fn name(self) -> &'static str {
        match self {
            Self::Critest => "critest",
            Self::Pods => "pods",
            Self::Checkpoints => "checkpoints",
        }
    }

    /// The arguments, and the number of what takes half a minute, at most, where everything is emulated.
    fn run(self, count: u16, at_once: u16) -> (String, u32) {
        let name = self.name();
        let always = format!(
            "--pool tank --nexcage /opt/nexcage/nexcage --registry 127.0.0.1:5000 \
             --results {RESULTS} --count {count}"
        );
        let contest = format!("{name} {CONTENDERS} --containerd-runtime crun {always}");
        let count = u32::from(count);
        match self {
            Self::Critest => (format!("{contest} --critest /opt/nexcage/critest"), count),
            Self::Pods => {
                let both = count + u32::from(at_once);
                (format!("{contest} --at-once {at_once}"), both)
            }
            Self::Checkpoints => (format!("{name} {always}"), count),
        }
    }
}

/// Measures with the release build in `programs`, all that there is if `only` is empty; numbers go to `target/bench/node`.
pub(super) fn measure(
    programs: &Utf8Path,
    only: &[Benchmark],
    count: u16,
    at_once: u16,
) -> anyhow::Result<()> {
    let benchmarks = match only {
        [] => &Benchmark::ALL,
        only => only,
    };
    let more = More {
        daemon: Some(programs.join("nexcage")),
        programs: vec![(programs.join(BENCH), BENCH)],
        ..More::default()
    };
    let results = target_dir().join("bench/node");
    // What an earlier run has said; its numbers stay.
    remove_file(&results.join("prepare.log"))?;
    for benchmark in benchmarks {
        remove_file(&results.join(benchmark.name()).with_extension("log"))?;
    }
    let node = Own::start(NODE, &more, results)?;
    node.run("prepare", "systemctl stop nexcage.service", MINUTE)?;
    let measured = benchmarks.iter().try_for_each(|benchmark| {
        let (arguments, samples) = benchmark.run(count, at_once);
        node.run(
            benchmark.name(),
            &format!("/opt/nexcage/{BENCH} {arguments}"),
            30 * MINUTE + samples * 2 * MINUTE,
        )
    });
    // After a failure, too, what was measured before is worth something.
    let fetched = node.fetch(RESULTS);
    measured.and(fetched)?;
    println!("\nall numbers: {}", node.results());
    node.end()
}
