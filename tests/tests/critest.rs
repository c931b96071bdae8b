//! critest in full, each spec compared with what is known of it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, ensure};
use nexcage_tests::known_failures::{KnownFailures, Outcome};
use nexcage_tests::leak::Baseline;
use nexcage_tests::{Machine, process, tools};
use serde::Deserialize;

/// critest takes minutes; a spec that hangs must not take the night.
const SECONDS: u64 = 30 * 60;

/// One suite of ginkgo's JSON report; only what is read here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: Option<String>,
}

impl Spec {
    fn name(&self) -> String {
        let mut words = self.container_hierarchy_texts.clone().unwrap_or_default();
        words.push(self.leaf_node_text.clone());
        words.join(" ")
    }

    fn outcome(&self) -> Outcome {
        match self.state.as_str() {
            "passed" => Outcome::Passed,
            "skipped" | "pending" => Outcome::Skipped,
            _ => Outcome::Failed,
        }
    }

    fn message(&self) -> &str {
        let message = self
            .failure
            .as_ref()
            .and_then(|failure| failure.message.as_deref());
        message.unwrap_or_default()
    }
}

#[test]
fn every_spec_ends_as_expected() {
    Machine::test(|machine| {
        let known = KnownFailures::parse(include_str!("../known-failures.txt"))?;
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        let specs = run(machine)?;

        let mut outcomes = BTreeMap::new();
        for spec in &specs {
            let outcome = spec.outcome();
            let listed = known.reason(&spec.name());
            match (outcome, listed) {
                (Outcome::Failed, Some(reason)) => println!("known: {}: {reason}", spec.name()),
                (Outcome::Failed, None) => println!("FAILED: {}\n{}", spec.name(), spec.message()),
                (Outcome::Skipped, _) => println!("skipped: {}: {}", spec.name(), spec.message()),
                (Outcome::Passed, _) => {}
            }
            outcomes.insert(spec.name(), outcome);
        }
        let count = |wanted| {
            outcomes
                .values()
                .filter(|outcome| **outcome == wanted)
                .count()
        };
        let (passed, failed, skipped) = (
            count(Outcome::Passed),
            count(Outcome::Failed),
            count(Outcome::Skipped),
        );
        println!("critest: {passed} passed, {failed} failed, {skipped} skipped");

        let surprises = known.surprises(&outcomes);
        ensure!(
            surprises.is_empty(),
            "critest:\n  {}",
            surprises.join("\n  ")
        );
        ensure!(passed > failed + skipped, "most of critest did not run");

        machine.crictl().remove_everything()?;
        baseline.check(machine)?;
        daemon.terminate()
    });
}

fn run(machine: &Machine) -> anyhow::Result<Vec<Spec>> {
    let critest = tools::critest()?;
    let report = machine.temporary_directory().join("critest.json");
    let temporary = machine.temporary_directory();
    let endpoint = format!("unix://{}", machine.socket());
    let arguments = [
        "--runtime-endpoint",
        &endpoint,
        "--image-endpoint",
        &endpoint,
        // critest would read /etc/crictl.yaml of this machine otherwise.
        "--config=/dev/null",
        "--ginkgo.no-color",
        &format!("--ginkgo.json-report={report}"),
    ];
    // critest mounts things below TMPDIR.
    let environment = [("TMPDIR", temporary.as_str())];
    let output = process::run_in(critest.as_str(), &arguments, SECONDS, &environment)?;
    let text = fs::read_to_string(&report)
        .with_context(|| format!("critest wrote no report at {report}: {output}"))?;
    let suites: Vec<Suite> = serde_json::from_str(&text).context("critest's report")?;
    let specs = suites.into_iter().flat_map(|suite| suite.spec_reports);
    // Not those that prepare the suite, nor benchmarks, which critest leaves out by itself.
    let specs =
        specs.filter(|spec| spec.leaf_node_type == "It" && !spec.name().contains("benchmark"));
    Ok(specs.collect())
}
