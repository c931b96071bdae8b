//! `pull`: nexcage against skopeo and umoci, and the memory that a large layer takes.

use std::fs;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;

use crate::contender::Kind;
use crate::generate::{LARGE, LARGE_BYTES, LAYER_BYTES, LAYERS, TEN};
use crate::nexcage::{Ground, Nexcage};
use crate::process::{command, run};
use crate::stage::{self, Stage};
use crate::summary::{Summary, mebibytes};
use crate::{Run, memory, report};

/// Growth that one layer of any size may cause, MiB.
const GROWTH: f64 = 64.0;

/// Seconds, and MiB that the daemon's memory has grown at most since its start.
#[derive(Debug, Serialize)]
struct Measured {
    image_bytes: u64,
    nexcage_seconds: Option<Summary>,
    nexcage_growth: Option<Summary>,
    tools_seconds: Option<Summary>,
    large_bytes: u64,
    large_seconds: f64,
    large_growth: f64,
}

/// One pull.
struct Pull {
    seconds: f64,
    growth: f64,
}

/// Measures, prints and keeps.
pub(crate) async fn bench(run: &Run, rounds: u16) -> anyhow::Result<()> {
    let _stage = Stage::set()?;
    let daemon = Nexcage::start(
        Kind::Nexcage,
        Ground::Plain,
        &run.nexcage,
        run.registry,
        &[],
    )
    .await?;
    // What the allocator keeps after a pull counts as growth in all that follow.
    let idle = memory::status(daemon.pid(), "VmRSS")?;
    println!("{rounds} rounds, each by nexcage and by skopeo and umoci");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..rounds {
        // Who comes second finds the registry's files in the page cache; so does who comes first from the second round on.
        if number % 2 == 0 {
            ours.push(by_nexcage(&daemon, idle, TEN).await?);
            theirs.push(by_tools(run)?);
        } else {
            theirs.push(by_tools(run)?);
            ours.push(by_nexcage(&daemon, idle, TEN).await?);
        }
    }
    println!("one layer of 2 GiB");
    let large = by_nexcage(&daemon, idle, LARGE).await?;
    daemon.end().await?;
    let measured = Measured {
        image_bytes: LAYERS * LAYER_BYTES,
        nexcage_seconds: Summary::of(ours.iter().map(|pull| pull.seconds).collect()),
        nexcage_growth: Summary::of(ours.iter().map(|pull| pull.growth).collect()),
        tools_seconds: Summary::of(theirs),
        large_bytes: LARGE_BYTES,
        large_seconds: large.seconds,
        large_growth: large.growth,
    };
    print(&measured);
    report::keep(&run.results, "pull", measured)
}

fn name(image: &str) -> String {
    format!("bench/{image}:latest")
}

/// Pulls an image and removes it; `idle` is what the daemon used before its first pull.
async fn by_nexcage(daemon: &Nexcage, idle: u64, image: &str) -> anyhow::Result<Pull> {
    settle();
    let image = format!("docker.io/{}", name(image));
    memory::reset_peak(daemon.pid())?;
    let begun = Instant::now();
    daemon.client.pull(&image).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let peak = memory::status(daemon.pid(), "VmHWM")?;
    daemon.client.forget(&image).await?;
    Ok(Pull {
        seconds,
        growth: mebibytes(peak.saturating_sub(idle)),
    })
}

fn by_tools(measured: &Run) -> anyhow::Result<f64> {
    settle();
    let root = stage::root(Kind::Floor);
    let (layout, bundle) = (root.join("layout"), root.join("bundle"));
    let from = format!("docker://{}/{}", measured.registry, name(TEN));
    let begun = Instant::now();
    run(command("skopeo")
        .args(["copy", "--src-tls-verify=false", &from])
        .arg(format!("oci:{layout}:{TEN}")))?;
    run(command("umoci")
        .args(["unpack", "--image", &format!("{layout}:{TEN}")])
        .arg(&bundle))?;
    let seconds = begun.elapsed().as_secs_f64();
    for dir in [layout, bundle] {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {dir}"))?;
    }
    Ok(seconds)
}

/// Nobody pays for what another has left to be written.
fn settle() {
    rustix::fs::sync();
}

#[allow(clippy::cast_precision_loss, reason = "shown without decimals")]
fn print(measured: &Measured) {
    let rate = |bytes: u64, seconds: f64| format!("{:.0} MB/s", bytes as f64 / 1e6 / seconds);
    let mut rows = vec![
        [
            "",
            "p50",
            "slowest",
            "unpacked per second",
            "growth of memory",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut row = |who: &str, seconds: &Option<Summary>, growth: &Option<Summary>| {
        let Some(seconds) = seconds else { return };
        let slowest = seconds.all.iter().copied().fold(0.0, f64::max);
        rows.push(vec![
            who.to_owned(),
            format!("{:.2} s", seconds.p50),
            format!("{slowest:.2} s"),
            rate(measured.image_bytes, seconds.p50),
            growth
                .as_ref()
                .map_or(String::new(), |g| format!("{:.1} MiB", g.p99)),
        ]);
    };
    row(
        "nexcage",
        &measured.nexcage_seconds,
        &measured.nexcage_growth,
    );
    row("skopeo + umoci", &measured.tools_seconds, &None);
    rows.push(vec![
        "nexcage, 2 GiB layer".to_owned(),
        format!("{:.2} s", measured.large_seconds),
        String::new(),
        rate(measured.large_bytes, measured.large_seconds),
        format!("{:.1} MiB", measured.large_growth),
    ]);
    println!();
    report::table(&rows);
    println!();
    if let Some((ours, theirs)) = measured
        .nexcage_seconds
        .as_ref()
        .zip(measured.tools_seconds.as_ref())
    {
        report::aim(
            "time, of that of skopeo and umoci",
            ours.p50 / theirs.p50,
            1.0,
            "",
        );
    }
    report::aim(
        "growth with a layer of 2 GiB",
        measured.large_growth,
        GROWTH,
        " MiB",
    );
}
