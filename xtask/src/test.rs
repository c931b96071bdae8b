//! The tiers of tests.
//!
//! `unit` needs neither root nor Go nor any package beyond what the build needs. `system` drives the
//! real daemon with crictl and critest, as root; what it needs is installed and built first, and
//! handed to the tests in environment variables (`tests/src/tools.rs` reads them). `node` does it in a virtual machine
//! that is like the users' own nodes ([`tier`]).

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use camino::Utf8PathBuf;
use clap::ValueEnum;

use crate::build::{self, Program};
use crate::compiled::NewClone;
use crate::go::Go;
use crate::node::tier::{self, Size};
use crate::registry::{Access, Registry};
use crate::run::{cargo, command, run, workspace};
use crate::{critools, deps, images};

/// Test targets and code that are only compiled when asked for; lints must see them all the same.
const ALL_FEATURES: &str = "nexcage/failpoints,nexcage-cri-api/go-tests,nexcage-tests/system,nexcage-tests/node,\
     nexcage-zfs/zfs-tests";

/// What lets tests end the daemon at any of its steps.
pub(crate) const FAILPOINTS: &str = "nexcage/failpoints";

/// The package with the system's tests.
const TESTS: &str = "nexcage-tests";
/// The package whose messages are compared with Go's.
const CRI_API: &str = "nexcage-cri-api";

/// What there is to test.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Tier {
    /// Formatting, lints, unit tests, licences: no root, no daemon.
    Unit,
    /// The real daemon on this machine, as root.
    System,
    /// The daemon in a virtual machine of its own: systemd, cgroup v2, AppArmor, ZFS.
    Node,
}

/// Runs one tier, or all in order.
pub(crate) fn run_tiers(tier: Option<Tier>, only: &[String], full: bool) -> anyhow::Result<()> {
    if !only.is_empty() && !matches!(tier, Some(Tier::System | Tier::Node)) {
        bail!(
            "--only names test targets of the system tier or steps of the node tier: \
             cargo xtask test system --only NAME"
        );
    }
    let tiers = match tier {
        Some(tier) => vec![tier],
        None => {
            deps::install_all()?;
            Tier::value_variants().to_vec()
        }
    };
    // Who asks for one tier is not kept waiting for the others' dependencies.
    let clone = match tier {
        Some(_) => None,
        None => NewClone::find()?,
    };
    if let Some(clone) = &clone {
        clone.bring()?;
    }
    let size = match tier {
        _ if full => Size::Full,
        Some(_) => Size::Usual,
        None => Size::Brief,
    };
    for tier in tiers {
        let begun = Instant::now();
        match tier {
            Tier::Unit => unit()?,
            Tier::System => system(only)?,
            Tier::Node => tier::test(only, size)?,
        }
        if let (Some(clone), Tier::Unit) = (&clone, tier) {
            // All dependencies that there are were compiled for it.
            clone.keep()?;
        }
        let name = tier
            .to_possible_value()
            .map(|value| value.get_name().to_owned());
        println!(
            "tier {}: passed in {:.0?}",
            name.unwrap_or_default(),
            begun.elapsed()
        );
    }
    Ok(())
}

fn unit() -> anyhow::Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo()
        .args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--features",
            ALL_FEATURES,
        ])
        .args(["--", "-D", "warnings"]))?;
    run(cargo().args(["test", "--quiet", "--workspace"]))?;
    let deny = deps::cargo_deny()?;
    // Not `advisories`: that check clones a git repository, which need not be reachable from here.
    run(command(deny)
        .args(["--workspace", "check", "bans", "licenses", "sources"])
        .current_dir(workspace()))
}

fn system(only: &[String]) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the system tests start containers and need root: sudo -E cargo xtask test system");
    }
    deps::install_packages()?;
    let go = Go::find()?;
    let tools = critools::build(&go)?;
    let registry = Registry::start(&images::storage()?, Access::ReadOnly)?;
    let daemon = build_daemon()?;
    let proxmox = build_proxmox_sim()?;
    println!("building the system tests");
    let tests = build::tests(TESTS, "system", only)?;
    if only.is_empty() {
        let descriptor = build::tests(CRI_API, "go-tests", &[])?;
        run_tests(CRI_API, &descriptor, |test| {
            test.env("PATH", go.path()).env("GOTOOLCHAIN", "local");
        })?;
    }
    run_tests(TESTS, &tests, |test| {
        // One at a time: they share the host's ports, iptables and LXC.
        test.args(["--test-threads=1", "--nocapture"])
            // What failed and where is in the message; the rest would bury it.
            .env("RUST_BACKTRACE", "0")
            .env("NEXCAGE_TEST_DAEMON", &daemon)
            .env("NEXCAGE_TEST_PROXMOX_SIM", &proxmox)
            .env("NEXCAGE_TEST_CRICTL", &tools.crictl)
            .env("NEXCAGE_TEST_CRITEST", &tools.critest)
            .env("NEXCAGE_TEST_REGISTRY", registry.address().to_string());
    })
}

/// Runs all of them, as cargo would, and fails if one failed.
fn run_tests(
    package: &str,
    tests: &[build::Test],
    prepare: impl Fn(&mut Command),
) -> anyhow::Result<()> {
    let directory = build::directory(package)?;
    let mut failed = Vec::new();
    for test in tests {
        let begun = Instant::now();
        let mut command = command(&test.program);
        command.current_dir(&directory);
        prepare(&mut command);
        let outcome = run(&mut command);
        let took = begun.elapsed();
        println!("{package}, {}: {took:.0?}", test.name);
        if let Err(error) = outcome {
            println!("{error:#}");
            failed.push(test.name.as_str());
        }
    }
    ensure!(failed.is_empty(), "{package}: {} failed", failed.join(", "));
    Ok(())
}

/// Builds the Proxmox VE node that tests take for one, and says where it is.
pub(crate) fn build_proxmox_sim() -> anyhow::Result<Utf8PathBuf> {
    println!("building the Proxmox simulator");
    build::program(Program::Bin("proxmox-sim"), &[])
}

/// Builds the daemon with failpoints compiled in, and says where it is.
pub(crate) fn build_daemon() -> anyhow::Result<Utf8PathBuf> {
    println!("building the daemon");
    let built = build::program(Program::Bin("nexcage"), &[FAILPOINTS])?;

    // Any other build of the daemon would replace the file while the tests run.
    let kept = built.with_file_name("nexcage-with-failpoints");
    let draft = built.with_file_name(format!("nexcage-with-failpoints.{}", std::process::id()));
    fs::copy(&built, &draft).with_context(|| format!("cannot copy {built} to {draft}"))?;
    fs::rename(&draft, &kept).with_context(|| format!("cannot rename {draft} to {kept}"))?;
    Ok(kept)
}
