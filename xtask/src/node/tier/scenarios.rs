//! What takes the node down. `tests/node/power.rs` has the parts that run in it.

use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{Bench, MINUTE, test_line};
use crate::node::machine::{Owner, Start};

/// A node that is asked to reboot has shut down after this time, even emulated: nothing in it waits for a timeout.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// When the power fails, from the first to the last time: pulls and pods are at different points then.
const LOADS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(11),
    Duration::from_secs(8),
    Duration::from_secs(17),
    Duration::from_secs(3),
];

/// The node is rebooted under a pod.
pub(super) fn reboot(bench: &mut Bench) -> anyhow::Result<()> {
    bench.part("power::before_the_end", 5 * MINUTE)?;
    let boot = boot_id(bench)?;
    let begun = Instant::now();
    // The connection breaks before the command ends.
    bench.node.machine.ssh().succeeds("systemctl reboot");
    while bench.node.machine.ssh().succeeds("true") && boot_id(bench).is_ok_and(|now| now == boot) {
        ensure!(
            begun.elapsed() < 2 * SHUTDOWN,
            "the node does not shut down within {:?}",
            2 * SHUTDOWN
        );
        park_timeout(Duration::from_millis(500));
    }
    bench.node.machine.wait_until_it_serves()?;
    println!("rebooted in {:.0?}", begun.elapsed());
    bench.part("power::the_node_is_in_order", 10 * MINUTE)
}

/// The power fails during pulls and while pods come and go. All that the node had not written is lost: QEMU is killed,
/// with the node's memory and what the disks' tables had not been told. What it has flushed is there, as on a disk
/// that keeps its promises; a disk that breaks them is not simulated.
pub(super) fn power_cuts(bench: &mut Bench, times: u32) -> anyhow::Result<()> {
    for (cut, load) in (1..=times).zip(LOADS.iter().cycle()) {
        bench.part("power::before_the_end", 5 * MINUTE)?;
        let line = test_line("--exact power::until_the_end --ignored --nocapture");
        bench.node.machine.ssh().run_within(
            &format!("systemd-run --quiet --collect --unit until-the-end bash -c '{line}'"),
            MINUTE,
        )?;
        park_timeout(*load);
        bench.node.machine.power_off()?;
        println!("power cut {cut} of {times}, {load:?} after the load began");
        let begun = Instant::now();
        bench
            .node
            .machine
            .power_on(Start::Boot, Owner::ThisThread)?;
        bench.node.machine.wait_until_it_serves()?;
        println!("the node is up again after {:.0?}", begun.elapsed());
        bench.part("power::the_node_is_in_order", 10 * MINUTE)?;
    }
    Ok(())
}

fn boot_id(bench: &Bench) -> anyhow::Result<String> {
    bench
        .node
        .machine
        .ssh()
        .output("cat /proc/sys/kernel/random/boot_id")
}
