//! `cargo xtask test node`: a node of its own, tests in it, and its end.
//!
//! The tests are the test target `node` of the crate `nexcage-tests`, built here and run there as root. What takes the
//! node down on the way is a scenario ([`scenarios`]): its parts run in the node, and this side pulls the plug.
//!
//! Whatever happens, what the node knows about it ends up in `target/node/`, and the node is taken away: QEMU ends
//! with the thread that started it.

mod scenarios;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use camino::Utf8PathBuf;

use super::own::Own;
use super::share::More;
use crate::run::target_dir;
use crate::{build, package, test};

/// The test program's name in the node.
const TESTS: &str = "tests";
/// The tests of the ZFS driver alone, on pools that they make themselves.
const ZFS_TESTS: &str = "zfs-tests";
/// The Proxmox VE node that tests take for one.
const PROXMOX_SIM: &str = "proxmox-sim";
/// This very program, which plays the demo there.
const XTASK: &str = "xtask";

/// Begins the names of tests' nodes; the number of their process follows.
const NODE: &str = "test-";

/// Pods whose containers an administrator plays with.
const PLAYED: &str = "100";

/// Specs of critest at one time.
const PARALLEL: &str = "2";

const MINUTE: Duration = Duration::from_secs(60);

/// What the journal and the like may take to come out.
const COLLECTING: Duration = Duration::from_secs(120);

/// How much of everything there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// What fits into a run of all tiers, which is to end in half an hour on two cores, emulated.
    Brief,
    /// All steps.
    Usual,
    /// As many pods and power cuts as promised; hours, where the node is emulated.
    Full,
}

impl Size {
    /// Pods at one time, and how often.
    fn churn(self) -> &'static str {
        match self {
            Self::Brief | Self::Usual => "20x3",
            Self::Full => "200x5",
        }
    }

    /// How often the power fails.
    fn power_cuts(self) -> u32 {
        match self {
            Self::Brief | Self::Usual => 2,
            Self::Full => 10,
        }
    }
}

/// One thing to do with the node, by the name that `--only` takes.
struct Step {
    name: &'static str,
    /// The smallest size that has it.
    from: Size,
    play: fn(&mut Bench, Size) -> anyhow::Result<()>,
}

const STEPS: &[Step] = &[
    Step {
        name: "systemd",
        from: Size::Brief,
        play: |bench, _| bench.test("systemd::", 20 * MINUTE),
    },
    Step {
        name: "zfs",
        from: Size::Brief,
        play: |bench, size| bench.zfs(size),
    },
    Step {
        name: "storage",
        from: Size::Usual,
        play: |bench, _| bench.test("storage::", 20 * MINUTE),
    },
    Step {
        name: "apparmor",
        from: Size::Usual,
        play: |bench, _| bench.test("apparmor::", 10 * MINUTE),
    },
    Step {
        name: "package",
        from: Size::Usual,
        play: |bench, _| bench.test("package::", 20 * MINUTE),
    },
    Step {
        name: "upgrade",
        from: Size::Brief,
        play: |bench, _| bench.test("upgrade::", 10 * MINUTE),
    },
    Step {
        name: "demo",
        from: Size::Usual,
        play: |bench, _| bench.demo(),
    },
    Step {
        name: "critest",
        from: Size::Brief,
        play: |bench, size| bench.critest(size),
    },
    Step {
        name: "proxmox",
        from: Size::Brief,
        play: |bench, size| bench.proxmox(size),
    },
    Step {
        name: "churn",
        from: Size::Usual,
        play: |bench, size| bench.churn(size),
    },
    Step {
        name: "reboot",
        from: Size::Usual,
        play: |bench, _| scenarios::reboot(bench),
    },
    Step {
        name: "power",
        from: Size::Usual,
        play: |bench, size| scenarios::power_cuts(bench, size.power_cuts()),
    },
];

/// Runs all steps of a size, or those in `only`, in a new node.
pub(crate) fn test(only: &[String], size: Size) -> anyhow::Result<()> {
    let unknown = only
        .iter()
        .find(|name| STEPS.iter().all(|step| step.name != name.as_str()));
    if let Some(unknown) = unknown {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!("there is no step {unknown}; there are {}", names.join(", "));
    }
    let mut bench = Bench::set_up()?;
    let mut failed = Vec::new();
    let mut report = Vec::new();
    let steps = STEPS.iter().filter(|step| match only {
        [] => step.from <= size,
        _ => only.iter().any(|name| name == step.name),
    });
    for step in steps {
        println!("== node: {}", step.name);
        let begun = Instant::now();
        let outcome = (step.play)(&mut bench, size);
        let verdict = match &outcome {
            Ok(()) => "passed",
            Err(error) => {
                println!("{}: {error:#}", step.name);
                failed.push(step.name);
                "FAILED"
            }
        };
        report.push(format!(
            "{:10} {verdict} in {:.0?}",
            step.name,
            begun.elapsed()
        ));
    }
    if let Err(error) = bench.collect() {
        println!("not everything could be fetched from the node: {error:#}");
        failed.push("collecting");
    }
    if bench.has_cores()? {
        failed.push("a program left a core dump, which");
    }
    println!("{}\nmore in {}", report.join("\n"), bench.node.results());
    bench.node.end()?;
    ensure!(failed.is_empty(), "node: {} failed", failed.join(", "));
    Ok(())
}

/// A node with tests in it.
struct Bench {
    node: Own,
}

impl Bench {
    fn set_up() -> anyhow::Result<Self> {
        let results = target_dir().join("node");
        super::remove(&results)?;
        let myself = std::env::current_exe().context("cannot find this program")?;
        let myself = Utf8PathBuf::try_from(myself).context("this program's path")?;
        let more = More {
            daemon: None,
            programs: vec![
                (build_tests("nexcage-tests", "node")?, TESTS),
                (build_tests("nexcage-zfs", "zfs-tests")?, ZFS_TESTS),
                (myself, XTASK),
                (test::build_proxmox_sim()?, PROXMOX_SIM),
            ],
            files: vec![
                (build_package(None)?, "nexcage.deb"),
                (build_package(Some("upgrade"))?, "upgrade.deb"),
            ],
        };
        let bench = Self {
            node: Own::start(NODE, &more, results)?,
        };
        bench.install()?;
        Ok(bench)
    }

    /// Puts the package in the place of the plain daemon that people's nodes have.
    fn install(&self) -> anyhow::Result<()> {
        self.node.run(
            "install",
            "systemctl disable --quiet --now nexcage.service \
             && rm /etc/systemd/system/nexcage.service /usr/local/bin/nexcage \
             && systemctl daemon-reload \
             && dpkg --install --force-confold /opt/nexcage/nexcage.deb \
             && systemctl is-active nexcage.service",
            5 * MINUTE,
        )
    }

    /// Runs the tests whose names begin with `filter`.
    fn test(&self, filter: &str, patience: Duration) -> anyhow::Result<()> {
        self.test_with(filter, &[], patience)
    }

    /// The same in an environment.
    fn test_with(
        &self,
        filter: &str,
        environment: &[(&str, &str)],
        patience: Duration,
    ) -> anyhow::Result<()> {
        let arguments = format!("{filter} --test-threads=1 --nocapture");
        let log = filter.trim_end_matches("::");
        self.tests(log, &arguments, environment, patience)
    }

    /// Runs one test that is part of a scenario.
    fn part(&self, name: &str, patience: Duration) -> anyhow::Result<()> {
        self.part_with(name, &[], patience)
    }

    /// The same in an environment.
    fn part_with(
        &self,
        name: &str,
        environment: &[(&str, &str)],
        patience: Duration,
    ) -> anyhow::Result<()> {
        let arguments = format!("--exact {name} --ignored --nocapture");
        self.tests(&name.replace("::", "-"), &arguments, environment, patience)
    }

    fn tests(
        &self,
        log: &str,
        arguments: &str,
        environment: &[(&str, &str)],
        patience: Duration,
    ) -> anyhow::Result<()> {
        let more: Vec<_> = environment
            .iter()
            .map(|(name, value)| format!("{name}={value} "))
            .collect();
        self.node.run(
            log,
            &format!("{}{}", more.concat(), test_line(arguments)),
            patience,
        )
    }

    /// critest, beside ZFS on overlay too where there is time.
    fn critest(&self, size: Size) -> anyhow::Result<()> {
        let filter = match size {
            Size::Brief => "critest::every_spec_ends_as_expected_on_zfs",
            Size::Usual | Size::Full => "critest::",
        };
        let environment = [("NEXCAGE_TEST_PARALLEL", PARALLEL)];
        self.test_with(filter, &environment, 90 * MINUTE)
    }

    /// Many pods.
    fn churn(&self, size: Size) -> anyhow::Result<()> {
        let environment = [("NEXCAGE_TEST_CHURN", size.churn())];
        self.test_with("churn::", &environment, 180 * MINUTE)
    }

    /// Pods as Proxmox containers.
    fn proxmox(&self, size: Size) -> anyhow::Result<()> {
        let filter = match size {
            Size::Brief => "proxmox::pods_that_nexcage_starts",
            Size::Usual | Size::Full => "proxmox::",
        };
        self.test(filter, 30 * MINUTE)?;
        if size < Size::Full {
            return Ok(());
        }
        // All of them, whatever comes of one: together they take an hour.
        let mut failed = Vec::new();
        for (name, patience) in [
            ("the_rest_of_pods_that_proxmox_starts", 20 * MINUTE),
            ("critest_ends_as_expected_started_directly", 45 * MINUTE),
            ("critest_ends_as_expected_started_by_proxmox", 45 * MINUTE),
            (
                "an_administrator_plays_with_pods_that_nexcage_starts",
                60 * MINUTE,
            ),
            (
                "an_administrator_plays_with_pods_that_proxmox_starts",
                60 * MINUTE,
            ),
        ] {
            let environment = [("NEXCAGE_TEST_PLAYED", PLAYED)];
            if let Err(error) = self.part_with(&format!("proxmox::{name}"), &environment, patience)
            {
                println!("{name}: {error:#}");
                failed.push(name);
            }
        }
        ensure!(failed.is_empty(), "{} failed", failed.join(", "));
        Ok(())
    }

    /// The ZFS driver without a daemon. Killing it at each of its steps takes as long as all the rest.
    fn zfs(&self, size: Size) -> anyhow::Result<()> {
        let skipped = match size {
            Size::Brief => "--skip crash::",
            Size::Usual | Size::Full => "",
        };
        let line = format!(
            "RUST_BACKTRACE=0 /opt/nexcage/{ZFS_TESTS} {skipped} --test-threads=1 --nocapture"
        );
        self.node.run("zfs", &line, 30 * MINUTE)
    }

    /// The demo, with systemd as init.
    fn demo(&self) -> anyhow::Result<()> {
        let line = format!(
            "/opt/nexcage/{XTASK} demo --daemon /usr/bin/nexcage --registry 127.0.0.1:5000"
        );
        self.node.run("demo", &line, 10 * MINUTE)
    }

    /// Fetches what tells of the past.
    fn collect(&self) -> anyhow::Result<()> {
        let console = self.node.machine.console();
        fs::copy(&console, self.node.results().join("console.log"))
            .with_context(|| format!("cannot copy {console}"))?;
        let ssh = self.node.machine.ssh();
        // Also of boots before this one; a daemon's core is in the journal's list and in its directory.
        ssh.run_within(
            "mkdir -p /var/log/collected && cd /var/log/collected \
             && journalctl --no-pager --output short-precise >journal.log \
             && (coredumpctl --no-pager list >cores.txt 2>&1 || true) \
             && (cp -r /var/lib/systemd/coredump cores || true) \
             && cd /var/log && mkdir -p critest \
             && find critest -name 'critest.*' -exec cp --parents -t collected {} +",
            COLLECTING,
        )?;
        self.node.fetch("/var/log/collected")
    }

    /// Whether a program crashed, after everything was fetched.
    fn has_cores(&self) -> anyhow::Result<bool> {
        let cores = self.node.results().join("cores");
        Ok(super::entries(&cores)?
            .iter()
            .any(|core| core.file_name().unwrap_or_default().starts_with("core.")))
    }
}

/// The command line that runs the tests in the node.
fn test_line(arguments: &str) -> String {
    format!(
        "env RUST_BACKTRACE=0 PATH=/opt/nexcage:$PATH HOME=/root NEXCAGE_TEST_CRICTL=/opt/nexcage/crictl \
         NEXCAGE_TEST_CRITEST=/opt/nexcage/critest NEXCAGE_TEST_PROXMOX_SIM=/opt/nexcage/{PROXMOX_SIM} \
         /opt/nexcage/{TESTS} {arguments}"
    )
}

/// The development build as a package, which is quicker to make. lintian looks at the first.
fn build_package(suffix: Option<&str>) -> anyhow::Result<Utf8PathBuf> {
    package::package(&package::Options {
        debug: true,
        suffix: suffix.map(str::to_owned),
        lint: suffix.is_none(),
    })
}

/// Builds a package's tests that need the feature and are one program, and says where it is.
fn build_tests(package: &str, feature: &str) -> anyhow::Result<Utf8PathBuf> {
    println!("building the node's tests: {package}");
    let tests = build::tests(package, feature, &[])?;
    match <[_; 1]>::try_from(tests) {
        Ok([test]) => Ok(test.program),
        Err(tests) => bail!("{package} has {} such programs", tests.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
    }

    #[test]
    fn steps_that_do_not_exist_are_refused_before_anything_is_built() {
        assert!(test(&["nonsense".to_owned()], Size::Usual).is_err());
    }
}
