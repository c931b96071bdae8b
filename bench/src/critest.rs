//! `critest`: the benchmark that critest has of its own, the same for all servers.
//!
//! It is run in two halves, in one order and then in the other, so that nobody gains by a machine that slows down on the way.
//! Its numbers are those of a client in Go, with what that does besides: creating a container includes asking for its image.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::contender::{Contender, Kind};
use crate::cri::Client;
use crate::process::{command, run};
use crate::stage::{self, Stage};
use crate::summary::Summary;
use crate::{Contest, pods, report};

/// What is in the store all the time, so that there is something to list. critest's containers are of the first.
const IMAGES: [&str; 6] = [
    "registry.k8s.io/e2e-test-images/busybox:1.29-2",
    "registry.k8s.io/pause:3.9",
    "registry.k8s.io/e2e-test-images/httpd:2.4.39-4",
    "gcr.io/k8s-staging-cri-tools/test-image-1:latest",
    "gcr.io/k8s-staging-cri-tools/test-image-2:latest",
    stage::IMAGE,
];

/// What is pulled and removed: a layer of 4 MB that no other image has, on one that all have.
const PULLED: &str = "registry.k8s.io/e2e-test-images/nginx:1.14-2";

/// Where critest writes, in the order of the table.
const FILES: [&str; 4] = [
    "pod_benchmark_data.json",
    "container_benchmark_data.json",
    "image_lifecycle_benchmark_data.json",
    "image_listing_benchmark_data.json",
];

/// Operations that belong together: runtimes differ in which of the two has the work.
const SUMS: [[&str; 2]; 3] = [
    ["StopPod", "RemovePod"],
    ["CreateContainer", "StartContainer"],
    ["StopContainer", "RemoveContainer"],
];

/// Seconds that one sample may take before critest gives up; it takes that many where everything is emulated, and others compute.
const PATIENCE: u32 = 300;

/// Milliseconds of one operation.
#[derive(Debug, Serialize)]
struct Operation {
    name: String,
    all: Vec<f64>,
}

/// What was measured of one contender.
#[derive(Debug, Serialize)]
struct Measured {
    version: String,
    operations: BTreeMap<String, Summary>,
}

/// Measures, prints and keeps.
pub(crate) async fn bench(contest: &Contest, critest: &Utf8Path, count: u16) -> anyhow::Result<()> {
    let kinds = contest.kinds(&Kind::SERVERS)?;
    let _stage = Stage::set()?;
    let mut contenders = Vec::new();
    for kind in &kinds {
        println!("preparing {kind}");
        contenders.push(Contender::prepare(*kind, contest, &IMAGES).await?);
    }
    pods::warm_up(&mut contenders).await?;
    contenders.sort_by_key(Contender::kind);
    let first = count.div_ceil(2);
    let mut samples = Samples::default();
    for half in [first, count - first] {
        for contender in &contenders {
            let (kind, client) = (contender.kind(), client(contender)?);
            println!("critest: {half} samples of {kind}");
            samples.add(kind, half_of(kind, client, critest, half)?);
        }
        contenders.reverse();
    }
    let mut measured = BTreeMap::new();
    for contender in contenders {
        let kind = contender.kind();
        let version = client(&contender)?.version().await?;
        let operations = samples.of(kind);
        measured.insert(
            kind,
            Measured {
                version,
                operations,
            },
        );
        contender.end().await?;
    }
    print(&samples.names, &measured);
    let by_name: BTreeMap<_, _> = measured
        .iter()
        .map(|(kind, m)| (kind.to_string(), m))
        .collect();
    report::keep(&contest.run.results, "critest", by_name)
}

fn client(contender: &Contender) -> anyhow::Result<&Client> {
    contender.client().context("critest needs a socket")
}

/// All that was measured so far.
#[derive(Default)]
struct Samples {
    /// Operations, in the order of the table.
    names: Vec<String>,
    all: BTreeMap<(Kind, String), Vec<f64>>,
}

impl Samples {
    fn add(&mut self, kind: Kind, operations: Vec<Operation>) {
        for Operation { name, all } in operations {
            if !self.names.contains(&name) {
                self.names.push(name.clone());
            }
            self.all.entry((kind, name)).or_default().extend(all);
        }
    }

    fn of(&self, kind: Kind) -> BTreeMap<String, Summary> {
        let ours = self.all.iter().filter(|((of, _), _)| *of == kind);
        ours.filter_map(|((_, name), all)| Some((name.clone(), Summary::of(all.clone())?)))
            .collect()
    }
}

/// Runs critest's benchmark with so many samples; nothing for none.
fn half_of(
    kind: Kind,
    client: &Client,
    critest: &Utf8Path,
    samples: u16,
) -> anyhow::Result<Vec<Operation>> {
    if samples == 0 {
        return Ok(Vec::new());
    }
    let dir = stage::root(kind).join("critest");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {dir}"))?;
    let parameters = dir.join("parameters.yaml");
    fs::write(&parameters, self::parameters(samples))
        .with_context(|| format!("cannot write {parameters}"))?;
    let endpoint = format!("unix://{}", client.socket());
    // Of all samples of all operations together, some of which take two pods.
    let patience = PATIENCE * 4 * u32::from(samples);
    run(command("timeout")
        .args(["--kill-after=10", &patience.to_string(), critest.as_str()])
        .args(["--runtime-endpoint", &endpoint])
        .args(["--image-endpoint", &endpoint])
        // critest would read /etc/crictl.yaml otherwise.
        .args(["--config=/dev/null", "--benchmark"])
        .args(["--benchmarking-params-file", parameters.as_str()])
        .args(["--benchmarking-output-dir", dir.as_str()])
        // The same order for all. One spec has a single sample, and keeps it for itself.
        .args(["--ginkgo.seed=1", "--ginkgo.skip=from scratch"])
        .arg("--ginkgo.no-color")
        .env("TMPDIR", &dir))
    .with_context(|| log_end(kind))?;
    let mut operations = Vec::new();
    for name in FILES {
        operations.extend(read(&dir.join(name))?);
    }
    Ok(operations)
}

/// What its daemon said last, for a failure.
fn log_end(kind: Kind) -> String {
    let log = fs::read_to_string(stage::root(kind).join("log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(30)..].join("\n");
    format!("{kind}, whose log ends with\n{end}\n")
}

/// critest's file of parameters. JSON is YAML.
fn parameters(samples: u16) -> String {
    json!({
        "podsNumber": samples,
        "containersNumber": samples,
        "imagesNumber": samples,
        // That of pods, too.
        "containerBenchmarkTimeoutSeconds": PATIENCE,
        "imageBenchmarkTimeoutSeconds": PATIENCE,
        "imagePullingBenchmarkImage": PULLED,
    })
    .to_string()
}

/// One of critest's files, which is taken away, so that the next half cannot be mistaken for it.
fn read(file: &Utf8PathBuf) -> anyhow::Result<Vec<Operation>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    fs::remove_file(file).with_context(|| format!("cannot remove {file}"))?;
    operations(&text).with_context(|| format!("in {file}"))
}

/// What critest writes; only what is read here. One data point has a duration for each name.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    operations_names: Vec<String>,
    datapoints: Vec<Datapoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Datapoint {
    operations_durations_ns: Vec<u64>,
}

/// Durations by operation, in the file's order.
fn operations(text: &str) -> anyhow::Result<Vec<Operation>> {
    let results: Results = serde_json::from_str(text).context("critest's results")?;
    ensure!(!results.datapoints.is_empty(), "critest has no results");
    let mut operations: Vec<_> = results
        .operations_names
        .into_iter()
        .map(|name| Operation { name, all: vec![] })
        .collect();
    for point in &results.datapoints {
        let durations = &point.operations_durations_ns;
        ensure!(
            durations.len() == operations.len(),
            "{} durations of {} operations",
            durations.len(),
            operations.len()
        );
        for (operation, nanoseconds) in operations.iter_mut().zip(durations) {
            operation.all.push(milliseconds(*nanoseconds));
        }
    }
    let sums: Vec<_> = SUMS
        .iter()
        .filter_map(|pair| sum(&operations, *pair))
        .collect();
    operations.extend(sums);
    Ok(operations)
}

/// Both operations as one, if they are there.
fn sum(operations: &[Operation], pair: [&str; 2]) -> Option<Operation> {
    let find = |name| operations.iter().find(|operation| operation.name == name);
    let (first, second) = (find(pair[0])?, find(pair[1])?);
    let both = first.all.iter().zip(&second.all);
    Some(Operation {
        name: pair.join(" + "),
        all: both.map(|(first, second)| first + second).collect(),
    })
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn print(names: &[String], measured: &BTreeMap<Kind, Measured>) {
    let mut rows = vec![vec![String::new()]];
    for kind in measured.keys() {
        rows[0].extend([format!("{kind} p50"), "p99".to_owned()]);
    }
    let ours: Vec<_> = Kind::NEXCAGE
        .into_iter()
        .filter(|kind| measured.contains_key(kind) && measured.contains_key(&Kind::Containerd))
        .collect();
    for kind in &ours {
        rows[0].extend([format!("{kind}/containerd p50"), "p99".to_owned()]);
    }
    for name in names {
        let of = |kind: Kind| measured.get(&kind)?.operations.get(name);
        let mut row = vec![name.clone()];
        for kind in measured.keys() {
            row.extend(cells(of(*kind), |s| [s.p50, s.p99], " ms", 1));
        }
        for kind in &ours {
            let both = of(*kind).zip(of(Kind::Containerd));
            row.extend(cells(both, |(o, t)| [o.p50 / t.p50, o.p99 / t.p99], "", 2));
        }
        rows.push(row);
    }
    println!();
    report::table(&rows);
    report::caution();
}

/// Two numbers for the table; empty if there are none.
fn cells<T>(of: Option<T>, numbers: fn(T) -> [f64; 2], unit: &str, decimals: usize) -> [String; 2] {
    of.map(numbers).map_or_else(Default::default, |numbers| {
        numbers.map(|number| format!("{number:.decimals$}{unit}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As critest 1.36.0 wrote them.
    const PODS: &str = include_str!("../tests/data/pod_benchmark_data.json");
    const CONTAINERS: &str = include_str!("../tests/data/container_benchmark_data.json");

    #[test]
    fn results_are_read() {
        insta::assert_json_snapshot!([operations(PODS).unwrap(), operations(CONTAINERS).unwrap()]);
    }

    #[test]
    fn parameters_are_those_of_critest() {
        insta::assert_snapshot!(parameters(25));
    }

    #[test]
    fn results_that_are_not_whole_are_refused() {
        let none = r#"{"operationsNames": ["ListImages"], "numParallel": 1, "datapoints": []}"#;
        assert!(operations(none).is_err());
        let short =
            r#"{"operationsNames": ["A", "B"], "datapoints": [{"operationsDurationsNs": [1]}]}"#;
        let error = operations(short).unwrap_err();
        assert_eq!(error.to_string(), "1 durations of 2 operations");
    }

    #[test]
    fn halves_are_joined() {
        let one = |all: &[f64]| {
            vec![Operation {
                name: "A".to_owned(),
                all: all.to_vec(),
            }]
        };
        let mut samples = Samples::default();
        samples.add(Kind::Nexcage, one(&[1.0, 3.0]));
        samples.add(Kind::Containerd, one(&[7.0]));
        samples.add(Kind::Nexcage, one(&[2.0]));
        assert_eq!(samples.names, ["A"]);
        let ours = samples.of(Kind::Nexcage);
        assert_eq!((ours["A"].p50, ours["A"].p99), (2.0, 3.0));
        assert_eq!(ours["A"].all, [1.0, 3.0, 2.0]);
    }
}
