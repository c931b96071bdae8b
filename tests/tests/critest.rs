//! critest in full, each spec compared with what is known of it.

use nexcage_tests::Machine;
use nexcage_tests::critest::{self, Critest};
use nexcage_tests::known_failures::KnownFailures;
use nexcage_tests::leak::Baseline;

/// Specs at one time: most of them wait.
const PARALLEL: u32 = 2;

#[test]
fn every_spec_ends_as_expected() {
    Machine::test(|machine| {
        let known = KnownFailures::parse(include_str!("../known-failures.txt"))?;
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        let specs = Critest {
            socket: &machine.socket(),
            directory: &machine.temporary_directory(),
            parallel: PARALLEL,
            seconds: 30 * 60,
        }
        .run()?;
        critest::judge(&specs, &known)?;

        machine.crictl().remove_everything()?;
        baseline.check(machine)?;
        daemon.terminate()
    });
}
