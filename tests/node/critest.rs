//! critest in full.

use std::fs;

use anyhow::Context as _;
use camino::Utf8Path;
use nexcage_tests::critest::{self, Critest};
use nexcage_tests::known_failures::KnownFailures;

use crate::Node;

/// Its reports, for those who read them afterwards.
const DIRECTORY: &str = "/var/log/critest";

#[test]
fn every_spec_ends_as_expected() {
    Node::test(|node| {
        let known = KnownFailures::parse(include_str!("../known-failures.txt"))?;
        fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot make {DIRECTORY}"))?;
        let parallel = match std::env::var("NEXCAGE_TEST_PARALLEL") {
            Ok(text) => text.parse().context("NEXCAGE_TEST_PARALLEL")?,
            Err(_) => 1,
        };
        let specs = Critest {
            socket: Node::socket(),
            directory: Utf8Path::new(DIRECTORY),
            parallel,
            seconds: 40 * 60,
        }
        .run()?;
        critest::judge(&specs, &known)?;
        node.remove_everything()
    });
}
