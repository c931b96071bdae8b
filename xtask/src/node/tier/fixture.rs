//! A node with the tests in it, and what is done with both.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use camino::Utf8PathBuf;

use super::{MINUTE, Size};
use crate::files::remove_tree;
use crate::node::own::Own;
use crate::node::share::More;
use crate::node::{Began, entries};
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

/// What the journal and the like may take to come out.
const COLLECTING: Duration = Duration::from_secs(120);

/// A node answers within this time after it was made, whether it goes on from a saved machine or boots under KVM, also while
/// others use the processors.
const ANSWERS: Duration = Duration::from_secs(30);

/// A node with tests in it.
pub(super) struct Fixture {
    pub(super) node: Own,
}

impl Fixture {
    pub(super) fn set_up() -> anyhow::Result<Self> {
        let results = target_dir().join("node");
        remove_tree(&results)?;
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
        Ok(Self {
            node: Own::start(NODE, &more, results)?,
        })
    }

    /// Fails unless the node was there in seconds, and went on from a saved machine if there is one.
    pub(super) fn start(&self) -> anyhow::Result<()> {
        let Began {
            at,
            answered_after,
            from_memory,
        } = self.node.began;
        let how = match from_memory {
            true => "from the memory of a saved machine",
            false => "booted under KVM",
        };
        println!("{how}, the node answered after {answered_after:.1?}");
        ensure!(
            answered_after < ANSWERS,
            "the node did not answer within {ANSWERS:?}, but after {answered_after:.1?}"
        );
        if from_memory {
            let line = "cut -d ' ' -f 1 /proc/uptime";
            let seconds: f64 = (self.node.machine.ssh().output(line)?.trim().parse())
                .context("the node's uptime")?;
            ensure!(
                seconds > at.elapsed().as_secs_f64(),
                "the node was to go on, but has booted {seconds} s ago"
            );
        }
        Ok(())
    }

    /// Puts the package in the place of the plain daemon that people's nodes have.
    pub(super) fn install(&self) -> anyhow::Result<()> {
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

    /// Runs the tests with `filter` in their names.
    pub(super) fn test(&self, filter: &str, patience: Duration) -> anyhow::Result<()> {
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
    pub(super) fn part(&self, name: &str, patience: Duration) -> anyhow::Result<()> {
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

    /// Runs the tests that `arguments` choose, and fails if these are none.
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
        let line = test_line(arguments);
        let chosen = format!("$({line} --list | grep -c ': test$')");
        self.node.run(
            log,
            &format!(
                "if [ {chosen} = 0 ]; then echo 'there is no such test'; exit 1; fi; {}{line}",
                more.concat()
            ),
            patience,
        )
    }

    /// critest, beside ZFS on overlay too where there is time.
    pub(super) fn critest(&self, size: Size) -> anyhow::Result<()> {
        let filter = match size {
            Size::Brief => "critest::every_spec_ends_as_expected_on_zfs",
            Size::Usual | Size::Full => "critest::",
        };
        let environment = [("NEXCAGE_TEST_PARALLEL", PARALLEL)];
        self.test_with(filter, &environment, 90 * MINUTE)
    }

    /// Many pods.
    pub(super) fn churn(&self, size: Size) -> anyhow::Result<()> {
        let environment = [("NEXCAGE_TEST_CHURN", size.churn())];
        self.test_with("churn::", &environment, 180 * MINUTE)
    }

    /// Pods as Proxmox containers.
    pub(super) fn proxmox(&self, size: Size) -> anyhow::Result<()> {
        let filter = match size {
            Size::Brief => "proxmox::pods_that_nexcage_starts",
            Size::Usual | Size::Full => "proxmox::",
        };
        self.test(filter, 30 * MINUTE)
    }

    /// One of the long tests of those.
    pub(super) fn proxmox_part(&self, name: &str, patience: Duration) -> anyhow::Result<()> {
        let environment = [
            ("NEXCAGE_TEST_PLAYED", PLAYED),
            ("NEXCAGE_TEST_PARALLEL", PARALLEL),
        ];
        self.part_with(&format!("proxmox::{name}"), &environment, patience)
    }

    /// The ZFS driver without a daemon. In brief without what takes longest: killing it at each of its steps takes as long as all
    /// the rest, and the many layers are as many calls. A quota is like a full pool.
    pub(super) fn zfs(&self, size: Size) -> anyhow::Result<()> {
        let skipped = match size {
            Size::Brief => {
                "--skip crash:: --skip databases::a_spent_quota --skip life::as_many_layers"
            }
            Size::Usual | Size::Full => "",
        };
        let line = format!(
            "RUST_BACKTRACE=0 /opt/nexcage/{ZFS_TESTS} {skipped} --test-threads=1 --nocapture"
        );
        self.node.run("zfs", &line, 30 * MINUTE)
    }

    /// The demo, with systemd as init.
    pub(super) fn demo(&self) -> anyhow::Result<()> {
        let line = format!(
            "/opt/nexcage/{XTASK} demo --daemon /usr/bin/nexcage --registry 127.0.0.1:5000"
        );
        self.node.run("demo", &line, 10 * MINUTE)
    }

    /// Fetches what tells of the past.
    pub(super) fn collect(&self) -> anyhow::Result<()> {
        let console = self.node.machine.console();
        fs::copy(&console, self.node.results().join("console.log"))
            .with_context(|| format!("cannot copy {console}"))?;
        let ssh = self.node.machine.ssh();
        // Also of boots before this one; a daemon's core is in the journal's list and in its directory.
        ssh.run_within(
            "mkdir -p /var/log/collected && cd /var/log/collected \
             && journalctl --no-pager --output short-precise >journal.log \
             && (coredumpctl --no-pager list >cores.txt 2>&1 || true) \
             && cp -r /var/lib/systemd/coredump cores \
             && cd /var/log && mkdir -p critest \
             && find critest -name 'critest.*' -exec cp --parents -t collected {} +",
            COLLECTING,
        )?;
        self.node.fetch("/var/log/collected")
    }

    /// Whether a program crashed, after everything was fetched.
    pub(super) fn has_cores(&self) -> anyhow::Result<bool> {
        let cores = self.node.results().join("cores");
        Ok(entries(&cores)?
            .iter()
            .any(|core| core.file_name().unwrap_or_default().starts_with("core.")))
    }
}

/// The command line that runs the tests in the node.
pub(super) fn test_line(arguments: &str) -> String {
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
