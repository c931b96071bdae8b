//! `checkpoints`: states of a container's root filesystem on ZFS, as `nexcage checkpoint` keeps them and `nexcage restore` goes
//! back to them.
//!
//! Commands are timed from the beginning of their process to its end, as who types them has to wait. In the same rounds:
//! `nexcage version`, which is what any command takes; `zfs` alone on a dataset of the same image that the same is written to,
//! which is the least that ZFS allows; and another container in the place of the first, since a restore stops and starts one, too.
//! Each round has a container of its own, so that none has more checkpoints than another.

use std::time::Instant;

use anyhow::Context as _;
use camino::Utf8Path;
use serde::Serialize;
use serde_json::json;

use crate::contender::{Kind, wait_until_ready};
use crate::cri::{Client, Pod};
use crate::dataset::{Dataset, Twin};
use crate::nexcage::{Ground, Nexcage};
use crate::process::{command, run};
use crate::stage::{self, Stage};
use crate::summary::{Summary, milliseconds};
use crate::{Run, report};

/// Rounds before the measured ones.
const WARM_UP: u16 = 3;

/// The only contender.
const KIND: Kind = Kind::NexcageZfs;

/// The most that a checkpoint may take, in milliseconds.
const CHECKPOINT: f64 = 200.0;

/// The most that a restore may take beyond the container's own end and start, in milliseconds.
const RESTORE: f64 = 1000.0;

/// What is in the root filesystem when it is kept.
const KEPT: [&str; 3] = ["sh", "-c", "echo kept >/bench"];

/// What is in it when it is taken back.
const LOST: [&str; 3] = ["sh", "-c", "echo lost >/bench"];

/// Whether it is as it was kept.
const RESTORED: [&str; 3] = ["sh", "-c", "test \"$(cat /bench)\" = kept"];

/// Milliseconds of one round.
#[derive(Clone, Copy, Default)]
struct Round {
    command: f64,
    checkpoint: f64,
    snapshot: f64,
    restore: f64,
    stop: f64,
    start: f64,
    rollback: f64,
}

/// What was measured. Milliseconds.
#[derive(Debug, Default, Serialize)]
struct Measured {
    version: String,
    /// `nexcage version`.
    command: Option<Summary>,
    /// `nexcage checkpoint`.
    checkpoint: Option<Summary>,
    /// `zfs snapshot`.
    snapshot: Option<Summary>,
    /// `nexcage restore`, to the latest.
    restore: Option<Summary>,
    /// StopContainer.
    stop: Option<Summary>,
    /// CreateContainer and StartContainer.
    start: Option<Summary>,
    /// `restore` without `stop` and `start` of the same round.
    restore_beyond: Option<Summary>,
    /// `zfs rollback`.
    rollback: Option<Summary>,
}

/// Measures, prints and keeps.
pub(crate) async fn bench(run: &Run, pool: &str, count: u16) -> anyhow::Result<()> {
    let _stage = Stage::set()?;
    println!("preparing {KIND}");
    let dataset = Dataset::make(pool)?;
    let name = dataset.name().to_owned();
    let ground = Ground::Zfs(dataset);
    let daemon = Nexcage::start(KIND, ground, &run.nexcage, run.registry, &[stage::IMAGE]).await?;
    println!("{count} rounds, one container each, {WARM_UP} more to warm up");
    let rounds = time(&daemon.client, &run.nexcage, &name, count).await?;
    let version = daemon.client.version().await?;
    let measured = Measured::of(version, &rounds);
    print(&measured);
    let by_name = json!({ KIND.to_string(): measured });
    report::keep(&run.results, "checkpoints", by_name)?;
    daemon.end().await
}

/// All rounds, in one pod. `dataset` is the daemon's.
async fn time(
    client: &Client,
    nexcage: &Utf8Path,
    dataset: &str,
    count: u16,
) -> anyhow::Result<Vec<Round>> {
    // Boxed, as CRI's messages are large.
    let (mut pod, _) = Box::pin(client.start(0)).await?;
    // What the storage driver calls the dataset of a container.
    let container = format!("{dataset}/containers/{}", pod.container);
    let twin = Twin::make(&container, dataset, &stage::root(KIND).join("twin"))?;
    let mut rounds = Vec::new();
    for number in 0..WARM_UP.saturating_add(count) {
        let mut round = Box::pin(round(client, nexcage, &mut pod, number)).await?;
        [round.snapshot, round.rollback] = twin.there_and_back()?.map(milliseconds);
        if number >= WARM_UP {
            rounds.push(round);
        }
    }
    client.remove(&pod).await?;
    Ok(rounds)
}

/// nexcage's part of a round. The pod has another container after it.
async fn round(
    client: &Client,
    nexcage: &Utf8Path,
    pod: &mut Pod,
    number: u16,
) -> anyhow::Result<Round> {
    let ask = |arguments: &[&str]| {
        let begun = Instant::now();
        run(command(nexcage)
            .args(["--socket", client.socket().as_str()])
            .args(arguments))?;
        anyhow::Ok(milliseconds(begun.elapsed()))
    };
    // Two of each round say so in the same log: the container that the round begins with, and the restored one.
    let said = usize::from(number) * 2;
    wait_until_ready(&pod.log, said + 1)?;
    let version = ask(&["version"])?;
    client.exec(pod, &KEPT).await?;
    let checkpoint = ask(&["checkpoint", &pod.container])?;
    client.exec(pod, &LOST).await?;
    let restore = ask(&["restore", &pod.container])?;
    wait_until_ready(&pod.log, said + 2)?;
    let restored = client.exec(pod, &RESTORED).await;
    restored.context("the root filesystem is not that of the checkpoint")?;
    let [stop, start] = client.restart(pod).await?.map(milliseconds);
    Ok(Round {
        command: version,
        checkpoint,
        restore,
        stop,
        start,
        ..Round::default()
    })
}

impl Measured {
    fn of(version: String, rounds: &[Round]) -> Self {
        let of = |value: fn(&Round) -> f64| Summary::of(rounds.iter().map(value).collect());
        Self {
            version,
            command: of(|round| round.command),
            checkpoint: of(|round| round.checkpoint),
            snapshot: of(|round| round.snapshot),
            restore: of(|round| round.restore),
            stop: of(|round| round.stop),
            start: of(|round| round.start),
            restore_beyond: of(|round| round.restore - round.stop - round.start),
            rollback: of(|round| round.rollback),
        }
    }

    /// Of what is printed one below the other: a name, and what was measured.
    fn rows(&self) -> [(&'static str, Option<&Summary>); 8] {
        [
            ("nexcage checkpoint", self.checkpoint.as_ref()),
            ("zfs snapshot", self.snapshot.as_ref()),
            ("nexcage restore", self.restore.as_ref()),
            ("StopContainer", self.stop.as_ref()),
            ("CreateContainer + StartContainer", self.start.as_ref()),
            ("restore beyond these", self.restore_beyond.as_ref()),
            ("zfs rollback", self.rollback.as_ref()),
            ("nexcage version", self.command.as_ref()),
        ]
    }
}

fn print(measured: &Measured) {
    println!();
    report::table(&table(measured));
    report::caution();
    println!("\n{KIND}:");
    let pairs = [
        (
            "checkpoint",
            &measured.checkpoint,
            CHECKPOINT,
            "zfs snapshot",
            &measured.snapshot,
        ),
        (
            "restore beyond stop and start",
            &measured.restore_beyond,
            RESTORE,
            "zfs rollback",
            &measured.rollback,
        ),
    ];
    for (what, ours, most, other, theirs) in pairs {
        let Some((ours, theirs)) = ours.as_ref().zip(theirs.as_ref()) else {
            continue;
        };
        let factor = ours.p50 / theirs.p50;
        report::fact(&format!("{what}, of that of {other}"), factor, "");
        // The aims are for a processor that is there.
        if !report::emulated() {
            report::aim(what, ours.p50, most, " ms");
        }
    }
}

fn table(measured: &Measured) -> Vec<Vec<String>> {
    let mut rows = vec![["", "p50", "p99"].map(str::to_owned).to_vec()];
    for (name, summary) in measured.rows() {
        let mut row = vec![name.to_owned()];
        row.extend(report::cells(summary));
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_is_told_apart_from_the_stop_and_start_in_it() {
        // Of unlike rounds, so that it matters that each is taken by itself.
        let of = |restore, stop, start| Round {
            restore,
            stop,
            start,
            ..Round::default()
        };
        let rounds = [
            of(100.0, 20.0, 50.0),
            of(500.0, 30.0, 460.0),
            of(90.0, 40.0, 30.0),
        ];
        let measured = Measured::of(String::new(), &rounds);
        let beyond = measured.restore_beyond.as_ref().unwrap();
        assert_eq!(beyond.all, [30.0, 10.0, 20.0]);
        assert_eq!((beyond.p50, beyond.p99), (20.0, 30.0));
    }

    #[test]
    fn each_number_is_in_its_row() {
        let round = Round {
            command: 1.0,
            checkpoint: 2.0,
            snapshot: 3.0,
            restore: 40.0,
            stop: 5.0,
            start: 6.0,
            rollback: 7.0,
        };
        let rows = table(&Measured::of(String::new(), &[round]));
        let numbers = rows
            .iter()
            .skip(1)
            .map(|row| (row[0].as_str(), row[1].as_str()));
        let expected = [
            ("nexcage checkpoint", "2.0 ms"),
            ("zfs snapshot", "3.0 ms"),
            ("nexcage restore", "40.0 ms"),
            ("StopContainer", "5.0 ms"),
            ("CreateContainer + StartContainer", "6.0 ms"),
            ("restore beyond these", "29.0 ms"),
            ("zfs rollback", "7.0 ms"),
            ("nexcage version", "1.0 ms"),
        ];
        assert_eq!(numbers.collect::<Vec<_>>(), expected);
    }
}
