//! What takes the node down. `tests/node/power.rs` has the parts that run in it.

use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::MINUTE;
use super::fixture::{Fixture, test_line};
use crate::node::machine::{Owner, Start};

/// A node that is asked to reboot has shut down after this time, even emulated: nothing in it waits for a timeout.
const SHUTDOWN: Duration = Duration::from_secs(120);

/// Where the kernel tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// When the power fails, from the first to the last time: pulls and pods are at different points then.
const LOADS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(11),
    Duration::from_secs(8),
    Duration::from_secs(17),
    Duration::from_secs(3),
];

/// The node is rebooted under a pod.
pub(super) fn reboot(fixture: &mut Fixture) -> anyhow::Result<()> {
    fixture.part("power::before_the_end", 5 * MINUTE)?;
    let boot = boot_id(fixture)?;
    let begun = Instant::now();
    // The connection breaks before the command ends.
    fixture.node.machine.ssh().succeeds("systemctl reboot");
    while boot_id(fixture).is_ok_and(|now| now == boot) {
        ensure!(
            begun.elapsed() < SHUTDOWN,
            "the node does not shut down within {SHUTDOWN:?}"
        );
        park_timeout(Duration::from_millis(500));
    }
    // It may only have been too busy to answer.
    let another = format!("[ \"$(cat {BOOT_ID})\" != {} ]", boot.trim());
    fixture
        .node
        .machine
        .wait_until("it has booted again", &another)?;
    fixture.node.machine.wait_until_it_serves()?;
    println!("rebooted in {:.0?}", begun.elapsed());
    fixture.part("power::the_node_is_in_order", 10 * MINUTE)
}

/// The power fails during pulls and while pods come and go. All that the node had not written is lost: QEMU is killed,
/// with the node's memory and what the disks' tables had not been told. What it has flushed is there, as on a disk
/// that keeps its promises; a disk that breaks them is not simulated.
pub(super) fn power_cuts(fixture: &mut Fixture, times: u32) -> anyhow::Result<()> {
    for (cut, load) in (1..=times).zip(LOADS.iter().cycle()) {
        fixture.part("power::before_the_end", 5 * MINUTE)?;
        let line = test_line("--exact power::until_the_end --ignored --nocapture");
        fixture.node.machine.ssh().run_within(
            &format!("systemd-run --quiet --collect --unit until-the-end bash -c '{line}'"),
            MINUTE,
        )?;
        park_timeout(*load);
        // A node that is too busy to answer has a load.
        let ask = "systemctl show --value --property ActiveState until-the-end.service";
        if let Ok(state) = fixture.node.machine.ssh().output(ask) {
            let state = state.trim();
            ensure!(
                state == "active",
                "before the power fails, the load is {state}"
            );
        }
        fixture.node.machine.power_off()?;
        println!("power cut {cut} of {times}, {load:?} after the load began");
        let begun = Instant::now();
        fixture
            .node
            .machine
            .power_on(Start::Boot, Owner::ThisThread)?;
        fixture.node.machine.wait_until_it_serves()?;
        println!("the node is up again after {:.0?}", begun.elapsed());
        fixture.part("power::the_node_is_in_order", 10 * MINUTE)?;
    }
    Ok(())
}

fn boot_id(fixture: &Fixture) -> anyhow::Result<String> {
    fixture.node.machine.ssh().output(&format!("cat {BOOT_ID}"))
}
