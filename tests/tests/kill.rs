//! The daemon is killed at each step that leaves something behind. After the next start, whatever
//! was half done is finished or gone, and the same requests succeed.

use anyhow::{Context as _, bail};
use nexcage_tests::leak::Baseline;
use nexcage_tests::{Daemon, Machine, Proxmox, image, spec, wait};

/// Failpoints that no request of this test reaches, each with the reason. They must not be reached: then
/// they belong off this list.
const NOT_REACHED: [(&str, &str); 9] = [
    (
        "pod.netns-pinned",
        "a network is pinned afterwards for pods with a user namespace",
    ),
    ("overlay.view-row", "views are made for image volumes"),
    (
        "overlay.layer-mapped",
        "layers are mapped for pods with a user namespace",
    ),
    ("pod.limits-recorded", "nobody changes a pod's limits"),
    ("pod.limits-set", "nobody changes a pod's limits"),
    ("container.restoring", "checkpoints need ZFS"),
    ("container.ended-to-restore", "checkpoints need ZFS"),
    ("container.rolled-back", "checkpoints need ZFS"),
    ("container.restored", "checkpoints need ZFS"),
];

#[test]
fn a_life_without_a_crash_leaves_nothing() {
    let ground = Ground::plain().unwrap();
    for handler in ["", "host"] {
        ground
            .live(handler)
            .unwrap_or_else(|error| panic!("runtime handler {handler:?}: {error:#}"));
    }
    ground.machine.passed();
}

#[test]
fn the_life_of_a_proxmox_container_leaves_nothing() {
    for start in ["direct", "api"] {
        let ground = Ground::proxmox(start).unwrap();
        ground
            .live("")
            .unwrap_or_else(|error| panic!("start {start}: {error:#}"));
        ground.machine.passed();
    }
}

#[test]
fn a_crash_at_any_step_is_cleaned_up() {
    // The ZFS driver needs a pool: its own tests kill it at its steps.
    crash_at_each(&Ground::plain, |failpoint| {
        !failpoint.starts_with("zfs.") && !failpoint.starts_with("pve.")
    });
}

#[test]
fn a_crash_at_any_step_of_a_proxmox_container_is_cleaned_up() {
    crash_at_each(&|| Ground::proxmox("direct"), |failpoint| {
        failpoint.starts_with("pve.")
    });
    crash_at_each(&|| Ground::proxmox("api"), |failpoint| {
        // Proxmox writes LXC's configuration then.
        failpoint.starts_with("pve.") && failpoint != "pve.config-written"
    });
}

fn crash_at_each(ground: &dyn Fn() -> anyhow::Result<Ground>, chosen: impl Fn(&str) -> bool) {
    let failpoints: Vec<_> = nexcage_failpoint::ALL
        .iter()
        .copied()
        .filter(|failpoint| chosen(failpoint))
        .collect();
    assert!(
        !failpoints.is_empty(),
        "no failpoints: nothing would be tested"
    );

    let mut bad = Vec::new();
    let mut kept = None;
    for failpoint in &failpoints {
        // A machine that was left in disorder would fail the next one too.
        let here = kept
            .take()
            .unwrap_or_else(|| ground().unwrap_or_else(|error| panic!("{error:#}")));
        match crash_at(&here.machine, failpoint, &here.baseline) {
            Ok(()) => {
                println!("failpoint {failpoint}: ok");
                here.machine.passed();
                kept = Some(here);
            }
            Err(error) => {
                println!("failpoint {failpoint}: FAILED: {error:#}");
                bad.push(*failpoint);
            }
        }
    }
    assert!(
        bad.is_empty(),
        "{} of {} failpoints: {bad:#?}",
        bad.len(),
        failpoints.len()
    );
}

/// A machine on which a daemon has run a pod and ended.
struct Ground {
    baseline: Baseline,
    /// Ends before what it is on is swept.
    _proxmox: Option<Proxmox>,
    machine: Machine,
}

impl Ground {
    fn plain() -> anyhow::Result<Self> {
        Self::used(Machine::new()?, None)
    }

    /// One whose pods are Proxmox containers, started by nexcage or by Proxmox.
    fn proxmox(start: &str) -> anyhow::Result<Self> {
        let machine = Machine::new()?;
        let proxmox = Proxmox::start(&machine)?;
        machine.write_config(&proxmox.config(start)?)?;
        Self::used(machine, Some(proxmox))
    }

    fn used(machine: Machine, proxmox: Option<Proxmox>) -> anyhow::Result<Self> {
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(&machine);
        daemon.terminate()?;
        Ok(Self {
            baseline,
            _proxmox: proxmox,
            machine,
        })
    }

    fn live(&self, handler: &str) -> anyhow::Result<()> {
        let daemon = self.machine.start_daemon()?;
        whole_life(&self.machine, handler, &mut || Ok(false))?;
        self.baseline.check(&self.machine)?;
        daemon.terminate()
    }
}

fn crash_at(machine: &Machine, failpoint: &str, baseline: &Baseline) -> anyhow::Result<()> {
    let handler = if failpoint.starts_with("host.") {
        "host"
    } else {
        ""
    };
    let not_reached = NOT_REACHED.iter().find(|(name, _)| *name == failpoint);

    let mut daemon = machine.start_daemon_failing_at(failpoint)?;
    let outcome = whole_life(machine, handler, &mut || died(&mut daemon));
    if !died(&mut daemon)? {
        // It may die a moment after it has answered.
        let _ = wait::until_true("the daemon dies", 2, || died(&mut daemon));
    }
    match (died(&mut daemon)?, not_reached) {
        (true, None) => {}
        (false, Some((_, reason))) => {
            println!("failpoint {failpoint} is not reached: {reason}");
            outcome?;
        }
        (true, Some((_, reason))) => bail!("is reached, though {reason}"),
        (false, None) => {
            outcome.context("and the daemon did not die")?;
            bail!("no step of a pod's life reaches it");
        }
    }
    drop(daemon);

    let daemon = machine.start_daemon().context("the next start")?;
    remove_what_has_ended(machine)?;
    whole_life(machine, handler, &mut || Ok(false))
        .context("the same requests after the restart")?;
    machine.crictl().remove_everything()?;
    baseline.check(machine)?;
    daemon.terminate()
}

/// What kubelet does before it asks for the same again: a pod or container that has ended is removed,
/// and one that runs is not asked for again.
fn remove_what_has_ended(machine: &Machine) -> anyhow::Result<()> {
    let crictl = machine.crictl();
    crictl.run(&["rm", "--all", "--force"])?;
    let pods = crictl.json(&["pods", "--state", "notready", "-o", "json"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let id = pod["id"].as_str().context("a pod has no id")?;
        crictl.run(&["stopp", id])?;
        crictl.run(&["rmp", id])?;
    }
    Ok(())
}

fn died(daemon: &mut Daemon) -> anyhow::Result<bool> {
    Ok(daemon.ended()?.is_some())
}

/// Everything that happens to an image, a pod and a container, in order. Ends when `stop` says so;
/// a step that fails is an error unless `stop` then says so.
fn whole_life(
    machine: &Machine,
    handler: &str,
    stop: &mut dyn FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let crictl = machine.crictl();
    let logs = machine.log_directory("mortal")?;
    let pod_file = machine.file("pod.json", &spec::pod("mortal", logs.as_str()))?;
    let container_file = machine.file("container.json", &spec::shell("counter", spec::COUNT))?;
    let (mut pod, mut container) = (String::new(), String::new());

    type Step<'a> = (&'a str, Box<dyn Fn(&str, &str) -> Vec<String>>);
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    let steps: [Step<'_>; 11] = [
        (
            "pull",
            Box::new(move |_, _| words(&["pull", image::BUSYBOX])),
        ),
        (
            "run the pod",
            Box::new({
                let file = pod_file.clone();
                let handler = handler.to_owned();
                move |_, _| words(&["runp", "--runtime", &handler, &file])
            }),
        ),
        (
            "create",
            Box::new(move |pod, _| {
                words(&["create", "--no-pull", pod, &container_file, &pod_file])
            }),
        ),
        (
            "start",
            Box::new(move |_, container| words(&["start", container])),
        ),
        (
            "exec",
            Box::new(move |_, container| words(&["exec", "--sync", container, "true"])),
        ),
        (
            "reopen the log",
            Box::new(move |_, container| words(&["logs", "--reopen", container])),
        ),
        (
            "stop",
            Box::new(move |_, container| words(&["stop", "--timeout", "5", container])),
        ),
        (
            "remove",
            Box::new(move |_, container| words(&["rm", container])),
        ),
        (
            "stop the pod",
            Box::new(move |pod, _| words(&["stopp", pod])),
        ),
        (
            "remove the pod",
            Box::new(move |pod, _| words(&["rmp", pod])),
        ),
        (
            "remove the image",
            Box::new(move |_, _| words(&["rmi", image::BUSYBOX])),
        ),
    ];
    for (name, command) in steps {
        let arguments = command(&pod, &container);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let outcome = crictl.run(&arguments);
        if stop()? {
            return Ok(());
        }
        let printed = outcome.with_context(|| name.to_owned())?;
        match name {
            "run the pod" => pod = printed,
            "create" => container = printed,
            _ => {}
        }
    }
    Ok(())
}
