//! `pods`: the contenders side by side.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::contender::{Contender, Kind};
use crate::programs::{Started, Watch};
use crate::stage::{self, Stage};
use crate::stats::Stats;
use crate::summary::{Summary, mebibytes, milliseconds};
use crate::{Contest, memory, report};

/// Rounds before the measured ones: caches fill, plugins are asked for their versions.
const WARM_UP: u32 = 3;

/// What was measured of one contender. Milliseconds and MiB.
#[derive(Debug, Default, Serialize)]
struct Measured {
    version: String,
    /// RunPodSandbox, or what by hand is the same. The first part of `to_running`.
    sandbox: Option<Summary>,
    to_running: Option<Summary>,
    exec: Option<Summary>,
    to_removed: Option<Summary>,
    /// The part of `sandbox` in which a simulated Proxmox works: from the beginning of the task's process to its end.
    task: Option<Summary>,
    /// Per pod: what the runtime keeps for it, shared with nobody.
    private: Option<Summary>,
    /// The same by program, on average.
    private_by_program: BTreeMap<String, f64>,
    /// Of the daemon, before the first pod and with all of them.
    daemon_rss: Option<[f64; 2]>,
    stats: Option<Stats>,
    /// Started by whoever, from nothing to all pods running, per pod.
    programs: Option<BTreeMap<String, f64>>,
}

/// Milliseconds of one round.
struct Round {
    sandbox: f64,
    to_running: f64,
    exec: f64,
    to_removed: f64,
}

/// Measures, prints and keeps.
pub(crate) async fn bench(contest: &Contest, count: u16, at_once: u16) -> anyhow::Result<()> {
    let kinds = contest.kinds(&Kind::ALL)?;
    let _stage = Stage::set()?;
    let mut contenders = Vec::new();
    for kind in kinds {
        println!("preparing {kind}");
        contenders.push(Contender::prepare(kind, contest, &[stage::IMAGE]).await?);
    }
    println!("{count} rounds, one pod each, {WARM_UP} more to warm up");
    warm_up(&mut contenders).await?;
    let begun = SystemTime::now();
    let mut rounds = time(&mut contenders, 0..count.into()).await?;
    let mut tasks = BTreeMap::new();
    for contender in &contenders {
        tasks.insert(contender.kind(), contender.tasks_since(begun)?);
    }
    println!("memory and statistics with {at_once} pods at one time");
    let mut measured = BTreeMap::new();
    for contender in &contenders {
        let kind = contender.kind();
        let mut result = weigh(contender, at_once.into()).await?;
        let rounds = rounds.remove(&kind).unwrap_or_default();
        let of = |value: fn(&Round) -> f64| Summary::of(rounds.iter().map(value).collect());
        result.sandbox = of(|round| round.sandbox);
        result.to_running = of(|round| round.to_running);
        result.exec = of(|round| round.exec);
        result.to_removed = of(|round| round.to_removed);
        let tasks = tasks.remove(&kind).unwrap_or_default();
        result.task = Summary::of(tasks.into_iter().map(milliseconds).collect());
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
    report::keep(&contest.run.results, "pods", by_name)
}

/// Rounds that nobody measures.
pub(crate) async fn warm_up(contenders: &mut [Contender]) -> anyhow::Result<()> {
    // Names differ from those of the measured rounds.
    let rounds = 20_000..20_000 + WARM_UP;
    time(contenders, rounds).await.map(drop)
}

/// One pod of each contender in each round, each round beginning with another one.
async fn time(
    contenders: &mut [Contender],
    numbers: Range<u32>,
) -> anyhow::Result<BTreeMap<Kind, Vec<Round>>> {
    let mut rounds: BTreeMap<Kind, Vec<Round>> = BTreeMap::new();
    for number in numbers {
        contenders.rotate_left(1);
        for contender in contenders.iter() {
            let round = round(contender, number).await?;
            rounds.entry(contender.kind()).or_default().push(round);
        }
    }
    Ok(rounds)
}

async fn round(contender: &Contender, number: u32) -> anyhow::Result<Round> {
    let begun = Instant::now();
    let (pod, sandbox) = contender.start(number).await?;
    let to_running = milliseconds(begun.elapsed());
    let begun = Instant::now();
    contender.exec(&pod).await?;
    let exec = milliseconds(begun.elapsed());
    pod.wait_until_ready()?;
    let begun = Instant::now();
    contender.remove(pod).await?;
    let to_removed = milliseconds(begun.elapsed());
    Ok(Round {
        sandbox: milliseconds(sandbox),
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
    let watch = Watch::begin()?;
    let mut pods = Vec::new();
    // Names differ from those of the timed rounds.
    for number in 0..count {
        pods.push(contender.start(10_000 + number).await?.0);
    }
    let started = watch.map(|watch| watch.take()).transpose()?;
    result.programs = started.map(|started| per_pod(started, count));
    result.daemon_rss = before
        .zip(rss(contender)?)
        .map(|(before, after)| [before, after]);
    for pod in &pods {
        pod.wait_until_ready()?;
    }
    let processes = memory::processes();
    let mut private = Vec::new();
    for pod in &pods {
        let programs = memory::of_pod(&processes, &contender.marks(pod).await?)?;
        private.push(mebibytes(programs.iter().map(|(_, bytes)| bytes).sum()));
        for (program, bytes) in programs {
            *result.private_by_program.entry(program).or_default() +=
                mebibytes(bytes) / f64::from(count);
        }
    }
    result.private = Summary::of(private);
    if let Some(client) = contender.client() {
        result.stats = Some(Stats::ask(client, pods.len()).await?);
    }
    for pod in pods {
        contender.remove(pod).await?;
    }
    Ok(result)
}

fn per_pod(started: Started, pods: u32) -> BTreeMap<String, f64> {
    let share = |(name, times)| (name, f64::from(times) / f64::from(pods));
    started.into_iter().map(share).collect()
}

/// A column of the table: its heading and the value in it.
type Column = (&'static str, fn(&Measured) -> Option<&Summary>);

/// Those of which there are aims beside others.
const TIMES: [Column; 3] = [
    ("to running", |m| m.to_running.as_ref()),
    ("ExecSync", |m| m.exec.as_ref()),
    ("to removed", |m| m.to_removed.as_ref()),
];

const SANDBOX: Column = ("RunPodSandbox", |m| m.sandbox.as_ref());

/// The most that RunPodSandbox may take where nexcage starts containers of Proxmox itself, beside plain LXC.
const DIRECTLY: f64 = 1.3;

fn print(measured: &BTreeMap<Kind, Measured>) {
    println!();
    report::table(&times(measured));
    println!();
    report::table(&weights(measured));
    report::caution();
    for (kind, result) in measured {
        let mib = counted(&result.private_by_program, 2);
        println!("  {kind}: private MiB per pod: {mib}");
        if let Some(programs) = &result.programs {
            println!(
                "  {kind}: programs started per pod: {}",
                counted(programs, 1)
            );
        }
        if let Some(stats) = &result.stats {
            println!("  {kind}: {stats}");
        }
    }
    for kind in Kind::NEXCAGE {
        if let Some(ours) = measured.get(&kind) {
            aims(kind, ours, measured);
        }
    }
    for kind in [Kind::NexcageProxmox, Kind::NexcageProxmoxApi] {
        if let Some(ours) = measured.get(&kind) {
            beside_plain(kind, ours, measured);
        }
    }
}

fn times(measured: &BTreeMap<Kind, Measured>) -> Vec<Vec<String>> {
    let columns = [SANDBOX].into_iter().chain(TIMES);
    let mut rows = vec![vec![String::new()]];
    for (heading, _) in columns.clone() {
        rows[0].extend([format!("{heading} p50"), "p99".to_owned()]);
    }
    for (kind, result) in measured {
        let mut row = vec![kind.to_string()];
        for (_, value) in columns.clone() {
            row.extend(report::cells(value(result)));
        }
        rows.push(row);
    }
    rows
}

fn weights(measured: &BTreeMap<Kind, Measured>) -> Vec<Vec<String>> {
    let headings = ["", "private/pod p50", "daemon RSS", "with pods"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    for (kind, result) in measured {
        let mut row = vec![kind.to_string()];
        row.extend(result.private.iter().map(|s| format!("{:.2} MiB", s.p50)));
        let rss = result.daemon_rss.iter().flatten();
        row.extend(rss.map(|mib| format!("{mib:.1} MiB")));
        rows.push(row);
    }
    rows
}

fn counted(by_program: &BTreeMap<String, f64>, decimals: usize) -> String {
    let each = by_program
        .iter()
        .map(|(program, number)| format!("{program} {number:.decimals$}"));
    each.collect::<Vec<_>>().join(", ")
}

fn aims(kind: Kind, ours: &Measured, measured: &BTreeMap<Kind, Measured>) {
    println!("\n{kind}:");
    for (other, factor) in [(Kind::Containerd, 0.5), (Kind::Floor, 1.3)] {
        for (what, value) in TIMES {
            let theirs = measured.get(&other).and_then(value);
            if let Some((ours, theirs)) = value(ours).zip(theirs) {
                let what = format!("{what}, of that of {other}");
                report::aim(&what, ours.p50 / theirs.p50, factor, "");
            }
        }
    }
    aim_of_memory(ours);
    if let Some(zfs) = ours.stats.as_ref().and_then(Stats::zfs_per_call) {
        report::aim("zfs processes per ListContainerStats", zfs, 1.0, "");
    }
}

/// Pods as containers of Proxmox: there is an aim for those that nexcage starts itself.
fn beside_plain(kind: Kind, ours: &Measured, measured: &BTreeMap<Kind, Measured>) {
    println!("\n{kind}:");
    let plain = measured.get(&Kind::Nexcage);
    let plain = plain.and_then(|plain| plain.sandbox.as_ref());
    if let Some((ours, plain)) = ours.sandbox.as_ref().zip(plain) {
        let what = format!("RunPodSandbox, of that of {}", Kind::Nexcage);
        let factor = ours.p50 / plain.p50;
        match kind {
            Kind::NexcageProxmox => report::aim(&what, factor, DIRECTLY, ""),
            _ => report::fact(&what, factor, ""),
        }
    }
    if let Some(task) = &ours.task {
        report::fact("the simulator's task in it, p50", task.p50, " ms");
    }
    aim_of_memory(ours);
}

fn aim_of_memory(ours: &Measured) {
    if let Some(private) = &ours.private {
        report::aim("private memory per pod", private.p50, 1.0, " MiB");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_takes_its_place_in_the_table() {
        let measured = Measured {
            to_removed: Summary::of(vec![7.0]),
            ..Measured::default()
        };
        let rows = times(&[(Kind::Floor, measured)].into());
        assert_eq!(rows[1].len(), rows[0].len());
        assert_eq!(rows[1].last().unwrap(), "7.0 ms");
        assert_eq!(rows[1][1], "");
    }
}
