//! critest: running it, and comparing each spec with what is known of it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, ensure};
use camino::Utf8Path;
use serde::Deserialize;

use crate::known_failures::{KnownFailures, Outcome};
use crate::{process, tools};

/// One suite of ginkgo's JSON report; only what is read here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

/// How one spec went.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    run_time: u64,
    failure: Option<Failure>,
}

#[derive(Clone, Debug, Deserialize)]
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

/// How critest is run.
#[derive(Clone, Copy, Debug)]
pub struct Critest<'a> {
    /// The daemon's socket.
    pub socket: &'a Utf8Path,
    /// A directory for the reports, `critest.json` and `critest.xml`, and for what critest mounts.
    pub directory: &'a Utf8Path,
    /// Specs at one time. More than one needs ginkgo, beside critest or in `PATH`.
    pub parallel: u32,
    /// Seconds after which it is killed: a spec that hangs must not take the night.
    pub seconds: u64,
}

impl Critest<'_> {
    /// Runs it in full.
    ///
    /// # Errors
    ///
    /// If it writes no report.
    pub fn run(&self) -> anyhow::Result<Vec<Spec>> {
        let critest = tools::critest()?;
        let report = self.directory.join("critest.json");
        // With several specs at one time, reports go into the working directory, under a name without a directory.
        let name = |file: &str| match self.parallel {
            1 => self.directory.join(file).into_string(),
            _ => file.to_owned(),
        };
        let endpoint = format!("unix://{}", self.socket);
        let json = format!("--ginkgo.json-report={}", name("critest.json"));
        let junit = format!("--ginkgo.junit-report={}", name("critest.xml"));
        let parallel = format!("--parallel={}", self.parallel);
        let mut arguments = vec![
            "--chdir",
            self.directory.as_str(),
            critest.as_str(),
            "--runtime-endpoint",
            &endpoint,
            "--image-endpoint",
            &endpoint,
            // critest would read /etc/crictl.yaml of this machine otherwise.
            "--config=/dev/null",
            "--ginkgo.no-color",
            &json,
            &junit,
        ];
        // Where it runs alone, critest takes the flag for go test's and refuses it, whatever the number.
        if self.parallel > 1 {
            arguments.push(&parallel);
        }
        let beside = critest.parent().map_or("", Utf8Path::as_str);
        let path = format!("{beside}:{}", std::env::var("PATH").unwrap_or_default());
        // critest mounts things below TMPDIR.
        let environment = [("TMPDIR", self.directory.as_str()), ("PATH", &path)];
        let output = process::run_in("env", &arguments, self.seconds, &environment)?;
        let text = fs::read_to_string(&report)
            .with_context(|| format!("critest wrote no report at {report}: {output}"))?;
        let suites: Vec<Suite> = serde_json::from_str(&text).context("critest's report")?;
        let specs = suites.into_iter().flat_map(|suite| suite.spec_reports);
        // Not those that prepare the suite, nor benchmarks, which critest leaves out by itself.
        let specs =
            specs.filter(|spec| spec.leaf_node_type == "It" && !spec.name().contains("benchmark"));
        Ok(specs.collect())
    }
}

/// Fails unless so many specs have passed whose names have these words: critest skips what it takes for impossible, and nobody
/// would notice.
///
/// # Errors
///
/// With all words of which too few passed.
pub fn ensure_passed(specs: &[Spec], wanted: &[(&str, usize)]) -> anyhow::Result<()> {
    let passed = |words: &str| {
        let named = specs.iter().filter(|spec| spec.name().contains(words));
        named
            .filter(|spec| spec.outcome() == Outcome::Passed)
            .count()
    };
    let missed: Vec<_> = wanted
        .iter()
        .map(|&(words, count)| (words, count, passed(words)))
        .filter(|(_, count, passed)| passed < count)
        .map(|(words, count, passed)| format!("{words}: {passed} of {count} specs passed"))
        .collect();
    ensure!(missed.is_empty(), "critest:\n  {}", missed.join("\n  "));
    Ok(())
}

/// Prints what did not pass, and the slowest of what did.
///
/// # Errors
///
/// With all that differs from what is known.
pub fn judge(specs: &[Spec], known: &KnownFailures) -> anyhow::Result<()> {
    let mut outcomes = BTreeMap::new();
    for spec in specs {
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
    let mut slowest: Vec<_> = specs
        .iter()
        .map(|spec| (spec.run_time, spec.name()))
        .collect();
    slowest.sort();
    for (nanoseconds, name) in slowest.iter().rev().take(5) {
        println!("slow: {} s: {name}", nanoseconds / 1_000_000_000);
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
    Ok(())
}
