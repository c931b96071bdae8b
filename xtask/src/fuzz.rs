//! Fuzzing: the targets in `fuzz/`, each for some seconds.

use std::fs;

use anyhow::{Context as _, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use crate::deps;
use crate::run::{cargo, command, output, run, workspace};

/// What cargo-fuzz sets too: coverage counters and traced comparisons for libFuzzer, and no
/// folding of branches that it could learn from.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0";

/// What one input may use: MiB of memory, seconds, bytes of the input itself.
const LIMITS: [&str; 3] = ["-rss_limit_mb=1024", "-timeout=10", "-max_len=16384"];

/// The C++ compiler for libFuzzer.
const PACKAGES: [(&str, &str); 1] = [("g++", "compiles libFuzzer")];

/// Builds and runs one target, or all, for `seconds` each; or one with one input.
pub(crate) fn fuzz(
    only: Option<&str>,
    seconds: u64,
    input: Option<&Utf8Path>,
) -> anyhow::Result<()> {
    deps::install(&PACKAGES)?;
    let home = workspace().join("fuzz");
    let mut targets = targets(&home)?;
    if let Some(only) = only {
        ensure!(
            targets.iter().any(|target| target == only),
            "there is no fuzz target {only:?}; there are {}",
            targets.join(", ")
        );
        targets.retain(|target| target == only);
    }
    let programs = build(&home, &targets)?;
    if let (Some(input), [target]) = (input, targets.as_slice()) {
        return run(command(programs.join(target)).arg(input));
    }
    for target in &targets {
        run_target(&home, target, &programs.join(target), seconds)?;
    }
    println!("no target failed");
    Ok(())
}

fn targets(home: &Utf8Path) -> anyhow::Result<Vec<String>> {
    let dir = home.join("fuzz_targets");
    let mut targets = Vec::new();
    for entry in dir
        .read_dir_utf8()
        .with_context(|| format!("cannot read {dir}"))?
    {
        let entry = entry.with_context(|| format!("cannot read {dir}"))?;
        targets.extend(entry.path().file_stem().map(str::to_owned));
    }
    targets.sort();
    Ok(targets)
}

/// Builds the targets with instrumentation and says in which directory they are.
fn build(home: &Utf8Path, targets: &[String]) -> anyhow::Result<Utf8PathBuf> {
    let triple = host_triple()?;
    let mut build = cargo();
    // With a --target, the flags are for that target alone: build scripts need no instrumentation.
    build
        .args(["build", "--profile", "fuzz", "--target", &triple])
        .args(["--package", "nexcage-fuzz", "--features", "libfuzzer"])
        .args(["--target-dir", home.join("target").as_str()])
        .env("RUSTFLAGS", RUSTFLAGS);
    for target in targets {
        build.args(["--bin", target]);
    }
    run(&mut build)?;
    Ok(home.join("target").join(triple).join("fuzz"))
}

fn host_triple() -> anyhow::Result<String> {
    let version = output(command("rustc").arg("-vV").current_dir(workspace()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host
        .context("rustc does not say what it runs on")?
        .to_owned())
}

fn run_target(
    home: &Utf8Path,
    target: &str,
    program: &Utf8Path,
    seconds: u64,
) -> anyhow::Result<()> {
    let [corpus, artifacts, seeds] =
        ["corpus", "artifacts", "seeds"].map(|dir| home.join(dir).join(target));
    for dir in [&corpus, &artifacts] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
    }
    let known = files(&artifacts)?;
    // New inputs go to the first directory.
    let ran = run(command(program)
        .args([&corpus, &seeds])
        .args([
            format!("-max_total_time={seconds}"),
            format!("-artifact_prefix={artifacts}/"),
        ])
        .args(LIMITS)
        .args(["-verbosity=0", "-print_funcs=0", "-print_final_stats=1"])
        .current_dir(home));
    let found: Vec<_> = files(&artifacts)?
        .into_iter()
        .filter(|file| !known.contains(file))
        .collect();
    match (ran, found.as_slice()) {
        (Ok(()), []) => Ok(()),
        (Err(error), []) => Err(error),
        (_, inputs) => {
            for input in inputs {
                println!("to see it again: cargo xtask fuzz --input {input} {target}");
            }
            bail!("the fuzz target {target} failed")
        }
    }
}

fn files(dir: &Utf8Path) -> anyhow::Result<Vec<Utf8PathBuf>> {
    dir.read_dir_utf8()
        .with_context(|| format!("cannot read {dir}"))?
        .map(|entry| {
            Ok(entry
                .with_context(|| format!("cannot read {dir}"))?
                .into_path())
        })
        .collect()
}
