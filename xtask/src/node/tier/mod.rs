//! `cargo xtask test node`: a node of its own, tests in it, and its end.
//!
//! The tests are the test target `node` of the crate `nexcage-tests`, built here and run there as root. What takes the
//! node down on the way is a scenario ([`scenarios`]): its parts run in the node, and this side pulls the plug.
//!
//! Whatever happens once the node is up, what it knows about that ends up in `target/node/`. And it is taken away: QEMU ends with the
//! thread that started it.

mod fixture;
mod scenarios;

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use fixture::Fixture;

const MINUTE: Duration = Duration::from_secs(60);

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
    play: fn(&mut Fixture, Size) -> anyhow::Result<()>,
}

/// Comes before all others.
const INSTALL: Step = Step {
    name: "install",
    from: Size::Brief,
    play: |fixture, _| fixture.install(),
};

/// In their order.
const STEPS: &[Step] = &[
    Step {
        name: "start",
        from: Size::Brief,
        play: |fixture, _| fixture.start(),
    },
    Step {
        name: "systemd",
        from: Size::Brief,
        play: |fixture, _| fixture.test("systemd::", 20 * MINUTE),
    },
    Step {
        name: "zfs",
        from: Size::Brief,
        play: |fixture, size| fixture.zfs(size),
    },
    Step {
        name: "storage",
        from: Size::Usual,
        play: |fixture, _| fixture.test("storage::", 20 * MINUTE),
    },
    Step {
        name: "apparmor",
        from: Size::Usual,
        play: |fixture, _| fixture.test("apparmor::", 10 * MINUTE),
    },
    Step {
        name: "users",
        from: Size::Usual,
        play: |fixture, _| fixture.test("users::", 10 * MINUTE),
    },
    Step {
        name: "package",
        from: Size::Usual,
        play: |fixture, _| fixture.test("package::", 20 * MINUTE),
    },
    Step {
        name: "upgrade",
        from: Size::Brief,
        play: |fixture, _| fixture.test("upgrade::", 10 * MINUTE),
    },
    Step {
        name: "demo",
        from: Size::Usual,
        play: |fixture, _| fixture.demo(),
    },
    Step {
        name: "critest",
        from: Size::Brief,
        play: |fixture, size| fixture.critest(size),
    },
    Step {
        name: "proxmox",
        from: Size::Brief,
        play: |fixture, size| fixture.proxmox(size),
    },
    Step {
        name: "proxmox-rest",
        from: Size::Full,
        play: |fixture, _| {
            fixture.proxmox_part("the_rest_of_pods_that_proxmox_starts", 20 * MINUTE)
        },
    },
    Step {
        name: "critest-direct",
        from: Size::Full,
        play: |fixture, _| {
            fixture.proxmox_part("critest_ends_as_expected_started_directly", 45 * MINUTE)
        },
    },
    Step {
        name: "critest-api",
        from: Size::Full,
        play: |fixture, _| {
            fixture.proxmox_part("critest_ends_as_expected_started_by_proxmox", 45 * MINUTE)
        },
    },
    Step {
        name: "admin-direct",
        from: Size::Full,
        play: |fixture, _| {
            fixture.proxmox_part(
                "an_administrator_plays_with_pods_that_nexcage_starts",
                60 * MINUTE,
            )
        },
    },
    Step {
        name: "admin-api",
        from: Size::Full,
        play: |fixture, _| {
            fixture.proxmox_part(
                "an_administrator_plays_with_pods_that_proxmox_starts",
                60 * MINUTE,
            )
        },
    },
    Step {
        name: "churn",
        from: Size::Usual,
        play: |fixture, size| fixture.churn(size),
    },
    Step {
        name: "reboot",
        from: Size::Usual,
        play: |fixture, _| scenarios::reboot(fixture),
    },
    Step {
        name: "power",
        from: Size::Usual,
        play: |fixture, size| scenarios::power_cuts(fixture, size.power_cuts()),
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
    let steps = STEPS.iter().filter(|step| match only {
        [] => step.from <= size,
        _ => only.iter().any(|name| name == step.name),
    });
    let mut fixture = Fixture::set_up()?;
    let mut outcome = Outcome::default();
    // Nothing can be tried without it.
    if outcome.play(&INSTALL, &mut fixture, size) {
        for step in steps {
            outcome.play(step, &mut fixture, size);
        }
    }
    let Outcome { mut failed, report } = outcome;
    if let Err(error) = fixture.collect() {
        println!("not everything could be fetched from the node: {error:#}");
        failed.push("collecting");
    }
    let results = fixture.node.results();
    if fixture.has_cores()? {
        println!("a program has crashed; see {results}/cores and cores.txt");
        failed.push("core dumps");
    }
    println!("{}\nmore in {results}", report.join("\n"));
    fixture.node.end()?;
    ensure!(failed.is_empty(), "node: failed: {}", failed.join(", "));
    Ok(())
}

/// What became of steps.
#[derive(Default)]
struct Outcome {
    failed: Vec<&'static str>,
    /// A line for each.
    report: Vec<String>,
}

impl Outcome {
    /// Plays a step, and says whether it passed.
    fn play(&mut self, step: &Step, fixture: &mut Fixture, size: Size) -> bool {
        println!("== node: {}", step.name);
        let begun = Instant::now();
        let outcome = (step.play)(fixture, size);
        let verdict = match &outcome {
            Ok(()) => "passed",
            Err(error) => {
                println!("{}: {error:#}", step.name);
                self.failed.push(step.name);
                "FAILED"
            }
        };
        self.report.push(format!(
            "{:10} {verdict} in {:.0?}",
            step.name,
            begun.elapsed()
        ));
        outcome.is_ok()
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
