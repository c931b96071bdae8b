//! The list of critest specs that are known to fail, and why.
//!
//! One per line: `name | reason`. A reason may begin with a condition in brackets, under which alone
//! the spec fails; elsewhere it has to pass. Lines that begin with `#` are comments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};

/// Conditions that a reason may begin with.
const NO_LIMITS: &str = "[cgroup v1 host]";

/// How a spec ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not as it should, in whatever way.
    Failed,
    /// critest found that it makes no sense here.
    Skipped,
}

/// Names of specs that may fail on this machine, each with the reason.
#[derive(Clone, Debug, Default)]
pub struct KnownFailures(BTreeMap<String, String>);

impl KnownFailures {
    /// Reads the list, leaving out lines whose condition does not hold here.
    ///
    /// # Errors
    ///
    /// A line without a reason, a name twice, or an unknown condition.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        Self::parse_for(text, has_cgroup_v2_limits())
    }

    fn parse_for(text: &str, limits: bool) -> anyhow::Result<Self> {
        let mut known = BTreeMap::new();
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, reason) = line
                .split_once(" | ")
                .with_context(|| format!("a known failure needs a reason: {line}"))?;
            let reason = match reason.strip_prefix(NO_LIMITS) {
                Some(_) if limits => continue,
                Some(reason) => reason.trim(),
                None if reason.starts_with('[') => bail!("unknown condition: {line}"),
                None => reason,
            };
            if known.insert(name.to_owned(), reason.to_owned()).is_some() {
                bail!("named twice: {name}");
            }
        }
        Ok(Self(known))
    }

    /// Why a spec is known to fail.
    #[must_use]
    pub fn reason(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Compares what happened with what was expected and gives everything that must be looked at:
    /// failures that are not listed, listed specs that passed, listed names that do not exist.
    #[must_use]
    pub fn surprises(&self, outcomes: &BTreeMap<String, Outcome>) -> Vec<String> {
        let mut surprises = BTreeSet::new();
        for (name, outcome) in outcomes {
            match (outcome, self.reason(name)) {
                (Outcome::Failed, None) => {
                    surprises.insert(format!("failed, and is not listed: {name}"));
                }
                (Outcome::Passed, Some(reason)) => {
                    surprises.insert(format!("passed, but is listed to fail ({reason}): {name}"));
                }
                _ => {}
            }
        }
        for name in self.0.keys().filter(|name| !outcomes.contains_key(*name)) {
            surprises.insert(format!("is listed, but there is no such spec: {name}"));
        }
        surprises.into_iter().collect()
    }
}

/// Whether this machine has cgroup v2 with its controllers, without which nothing is limited.
fn has_cgroup_v2_limits() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(list: &[(&str, Outcome)]) -> BTreeMap<String, Outcome> {
        list.iter()
            .map(|(name, outcome)| ((*name).to_owned(), *outcome))
            .collect()
    }

    const LIST: &str = "# comment\n\na | not yet\nb | [cgroup v1 host] no limits\n";

    #[test]
    fn what_is_expected_is_no_surprise() {
        let known = KnownFailures::parse_for(LIST, false).unwrap();
        let seen = outcomes(&[
            ("a", Outcome::Failed),
            ("b", Outcome::Failed),
            ("c", Outcome::Passed),
            ("d", Outcome::Skipped),
        ]);
        assert!(known.surprises(&seen).is_empty());
    }

    #[test]
    fn every_kind_of_surprise_is_told() {
        let known = KnownFailures::parse_for("a | x\ngone | x\n", false).unwrap();
        let seen = outcomes(&[("a", Outcome::Passed), ("c", Outcome::Failed)]);
        let surprises = known.surprises(&seen);
        assert_eq!(surprises.len(), 3, "{surprises:#?}");
    }

    #[test]
    fn a_condition_that_does_not_hold_makes_a_failure_a_surprise() {
        let known = KnownFailures::parse_for(LIST, true).unwrap();
        let seen = outcomes(&[("a", Outcome::Failed), ("b", Outcome::Failed)]);
        assert_eq!(known.surprises(&seen).len(), 1);
    }

    #[test]
    fn lines_that_say_nothing_are_refused() {
        for bad in ["a", "a | [nowhere] x", "a | x\na | y"] {
            assert!(KnownFailures::parse_for(bad, false).is_err(), "{bad}");
        }
    }
}
