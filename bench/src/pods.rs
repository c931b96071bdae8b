//! `pods`: the contenders side by side.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use crate::containerd::Containerd;
use crate::contender::{Contender, Kind};
use crate::floor::Floor;
use crate::nexcage::Nexcage;
use crate::stage::{self, Stage};
use crate::summary::{Summary, mebibytes, milliseconds};
use crate::{Run, memory, report};

/// Rounds before the measured ones: caches fill, plugins are asked for their versions.
const WARM_UP: u32 = 3;

/// What was measured of one contender. Milliseconds and MiB.
#[derive(Debug, Default, Serialize)]
struct Measured {
    version: String,
    to_running: Option<Summary>,
    exec: Option<Summary>,
    to_removed: Option<Summary>,
    /// Per pod: what the runtime keeps for it, shared with nobody.
    private: Option<Summary>,
    /// The same by program, on average.
    private_by_program: BTreeMap<String, f64>,
    /// Of the daemon, before the first pod and with all of them.
    daemon_rss: Option<[f64; 2]>,
}

/// Milliseconds of one round.
struct Round {
    to_running: f64,
    exec: f64,
    to_removed: f64,
}

/// Measures, prints and keeps.
pub(crate) async fn bench(run: &Run, count: u16, only: &[Kind]) -> anyhow::Result<()> {
    let kinds = if only.is_empty() { &Kind::ALL } else { only };
    let _stage = Stage::set()?;
    let mut contenders = Vec::new();
    for kind in kinds {
        println!("preparing {kind}");
        contenders.push(prepare(*kind, run).await?);
    }
    println!("{count} rounds, one pod each, {WARM_UP} more to warm up");
    let mut rounds = time(&mut contenders, count.into()).await?;
    println!("memory with {count} pods at one time");
    let mut measured = BTreeMap::new();
    for contender in &contenders {
        let kind = contender.kind();
        let mut result = weigh(contender, count.into()).await?;
        let rounds = rounds.remove(&kind).unwrap_or_default();
        let of = |value: fn(&Round) -> f64| Summary::of(rounds.iter().map(value).collect());
        result.to_running = of(|round| round.to_running);
        result.exec = of(|round| round.exec);
        result.to_removed = of(|round| round.to_removed);
        measured.insert(kind, result);
    }
    for contender in contenders {
        contender.end().await?;
    }
    print(&measured);
    let by_name: BTreeMap<_, _> = measured
        .iter()
        .map(|(kind, m)| (kind.to_string(), m))
        .collect();
    report::keep(&run.results, "pods", by_name)
}

async fn prepare(kind: Kind, run: &Run) -> anyhow::Result<Contender> {
    let images = [stage::IMAGE];
    Ok(match kind {
        Kind::Nexcage => {
            Contender::Nexcage(Nexcage::start(&run.nexcage, run.registry, &images).await?)
        }
        Kind::Containerd => Contender::Containerd(Containerd::start(run.registry, &images).await?),
        Kind::Floor => Contender::Floor(Floor::prepare(run.registry)?),
    })
}

/// One pod of each contender in each round, each round beginning with another one.
async fn time(
    contenders: &mut [Contender],
    count: u32,
) -> anyhow::Result<BTreeMap<Kind, Vec<Round>>> {
    let mut rounds: BTreeMap<Kind, Vec<Round>> = BTreeMap::new();
    for number in 0..WARM_UP + count {
        contenders.rotate_left(1);
        for contender in contenders.iter() {
            let round = round(contender, number).await?;
            if number >= WARM_UP {
                rounds.entry(contender.kind()).or_default().push(round);
            }
        }
    }
    Ok(rounds)
}

async fn round(contender: &Contender, number: u32) -> anyhow::Result<Round> {
    let begun = Instant::now();
    let pod = contender.start(number).await?;
    let to_running = milliseconds(begun.elapsed());
    let begun = Instant::now();
    contender.exec(&pod).await?;
    let exec = milliseconds(begun.elapsed());
    pod.wait_until_ready()?;
    let begun = Instant::now();
    contender.remove(pod).await?;
    let to_removed = milliseconds(begun.elapsed());
    Ok(Round {
        to_running,
        exec,
        to_removed,
    })
}

/// Memory with many pods at one time.
async fn weigh(contender: &Contender, count: u32) -> anyhow::Result<Measured> {
    let mut result = Measured::default();
    if let Some(client) = contender.client() {
        result.version = client.version().await?;
    }
    let rss = |contender: &Contender| -> anyhow::Result<Option<f64>> {
        let pid = contender.daemon();
        let rss = pid.map(|pid| memory::status(pid, "VmRSS")).transpose()?;
        Ok(rss.map(mebibytes))
    };
    let before = rss(contender)?;
    let mut pods = Vec::new();
    // Names differ from those of the timed rounds.
    for number in 0..count {
        pods.push(contender.start(10_000 + number).await?);
    }
    result.daemon_rss = before
        .zip(rss(contender)?)
        .map(|(before, after)| [before, after]);
    let processes = memory::processes();
    let mut per_pod = Vec::new();
    for pod in &pods {
        let programs = memory::of_pod(&processes, &pod.marks())?;
        per_pod.push(mebibytes(programs.iter().map(|(_, bytes)| bytes).sum()));
        for (program, bytes) in programs {
            *result.private_by_program.entry(program).or_default() +=
                mebibytes(bytes) / f64::from(count);
        }
    }
    result.private = Summary::of(per_pod);
    for pod in pods {
        pod.wait_until_ready()?;
        contender.remove(pod).await?;
    }
    Ok(result)
}

/// A column of the table: its heading and the value in it.
type Column = (&'static str, fn(&Measured) -> Option<&Summary>);

const TIMES: [Column; 3] = [
    ("to running", |m| m.to_running.as_ref()),
    ("ExecSync", |m| m.exec.as_ref()),
    ("to removed", |m| m.to_removed.as_ref()),
];

fn print(measured: &BTreeMap<Kind, Measured>) {
    let mut rows = vec![vec![String::new()]];
    for (heading, _) in TIMES {
        rows[0].extend([format!("{heading} p50"), "p99".to_owned()]);
    }
    rows[0].extend(["private/pod p50", "daemon RSS", "with pods"].map(str::to_owned));
    for (kind, result) in measured {
        let mut row = vec![kind.to_string()];
        for (_, value) in TIMES {
            row.extend(
                value(result)
                    .iter()
                    .flat_map(|s| [s.p50, s.p99])
                    .map(|ms| format!("{ms:.1} ms")),
            );
        }
        row.extend(result.private.iter().map(|s| format!("{:.2} MiB", s.p50)));
        row.extend(
            result
                .daemon_rss
                .iter()
                .flatten()
                .map(|mib| format!("{mib:.1} MiB")),
        );
        rows.push(row);
    }
    println!();
    report::table(&rows);
    for (kind, result) in measured {
        let programs: Vec<_> = result
            .private_by_program
            .iter()
            .map(|(program, mib)| format!("{program} {mib:.2}"))
            .collect();
        println!("  {kind}: private MiB per pod: {}", programs.join(", "));
    }
    aims(measured);
}

fn aims(measured: &BTreeMap<Kind, Measured>) {
    let Some(nexcage) = measured.get(&Kind::Nexcage) else {
        return;
    };
    println!();
    for (other, factor) in [(Kind::Containerd, 0.5), (Kind::Floor, 1.3)] {
        for (what, value) in TIMES {
            let ours = value(nexcage);
            let theirs = measured.get(&other).and_then(value);
            if let Some((ours, theirs)) = ours.zip(theirs) {
                let what = format!("{what}, of that of {other}");
                report::aim(&what, ours.p50 / theirs.p50, factor, "");
            }
        }
    }
    if let Some(private) = &nexcage.private {
        report::aim("private memory per pod", private.p50, 1.0, " MiB");
    }
}
