//! Whom to ask next, and when.

use std::time::Duration;

use super::failure::{Failure, FailureKind};
use crate::options::RetryPolicy;
use crate::pull::PullError;

/// Walks through the hosts of a registry in order, round after round. A host whose failure will
/// not change is left out of later rounds; between rounds there is a growing pause.
#[derive(Debug)]
pub(crate) struct Rounds<'a> {
    policy: &'a RetryPolicy,
    names: &'a [String],
    /// Hosts still worth asking, in order.
    alive: Vec<usize>,
    position: usize,
    /// Rounds that ended without progress.
    failed: u32,
    /// The last failure of each host.
    failures: Vec<Option<Failure>>,
}

impl<'a> Rounds<'a> {
    /// Rounds through the hosts of these names. `first` is asked before the others.
    pub(crate) fn new(policy: &'a RetryPolicy, names: &'a [String], first: usize) -> Self {
        let mut alive: Vec<usize> = (0..names.len()).collect();
        alive.sort_by_key(|host| *host != first);
        Self {
            policy,
            names,
            alive,
            position: 0,
            failed: 0,
            failures: vec![None; names.len()],
        }
    }

    /// The next host to ask; none when there is no hope left. Pauses at the end of a round.
    pub(crate) async fn next(&mut self) -> Option<usize> {
        if self.position >= self.alive.len() {
            self.failed += 1;
            self.position = 0;
            self.drop_the_impatient();
            if self.alive.is_empty() || self.failed >= self.policy.tries.max(1) {
                return None;
            }
            tokio::time::sleep(self.pause()).await;
        }
        let host = self.alive[self.position];
        self.position += 1;
        Some(host)
    }

    /// Notes that the host that was asked last failed.
    pub(crate) fn failed(&mut self, host: usize, failure: Failure) {
        tracing::debug!(host = %self.names[host], detail = %failure.detail, "registry request failed");
        if !failure.is_transient() {
            self.alive.retain(|alive| *alive != host);
            self.position = self.position.saturating_sub(1);
        }
        self.failures[host] = Some(failure);
    }

    /// Notes that something was gained since the last failure, so that counting starts anew.
    pub(crate) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// A host that wants to be left alone for longer than we would wait is not asked again.
    fn drop_the_impatient(&mut self) {
        let max = self.policy.max_delay;
        let failures = &self.failures;
        self.alive
            .retain(|host| wait_wanted(&failures[*host]).is_none_or(|wait| wait <= max));
    }

    fn pause(&self) -> Duration {
        let doubled = 1u32
            .checked_shl(self.failed.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let backoff = self.policy.first_delay.saturating_mul(doubled);
        // Up to a quarter more, so that many nodes do not come back at the same moment.
        let jitter = backoff.mul_f64(f64::from(rand::random::<u8>()) / 1020.0);
        let wanted = self
            .alive
            .iter()
            .filter_map(|host| wait_wanted(&self.failures[*host]))
            .max()
            .unwrap_or_default();
        (backoff + jitter).max(wanted).min(self.policy.max_delay)
    }

    /// What all hosts said.
    pub(crate) fn detail(&self) -> String {
        let said: Vec<String> = self
            .names
            .iter()
            .zip(&self.failures)
            .filter_map(|(name, failure)| Some(format!("{name}: {}", failure.as_ref()?.detail)))
            .collect();
        said.join("; ")
    }

    /// Why `reference` could not be had. The registry itself, the last host, decides what kind of
    /// error it is; a mirror decides only if the registry was not asked.
    pub(crate) fn into_error(self, reference: String) -> PullError {
        let detail = self.detail();
        let decisive = self.failures.into_iter().rev().flatten().next();
        decisive
            .unwrap_or_else(|| Failure::new(FailureKind::Unavailable, "no host to ask"))
            .into_pull_error(reference, detail)
    }
}

fn wait_wanted(failure: &Option<Failure>) -> Option<Duration> {
    match failure.as_ref()?.kind {
        FailureKind::RateLimited { retry_after } => retry_after,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("h{i}")).collect()
    }

    fn policy(tries: u32) -> RetryPolicy {
        RetryPolicy {
            tries,
            first_delay: Duration::from_millis(20),
            max_delay: Duration::from_millis(400),
        }
    }

    fn down() -> Failure {
        Failure::new(FailureKind::Unavailable, "down")
    }

    #[tokio::test]
    async fn hosts_in_order_then_again_then_the_end() {
        let (names, policy) = (names(2), policy(2));
        let mut rounds = Rounds::new(&policy, &names, 1);
        let mut asked = Vec::new();
        while let Some(host) = rounds.next().await {
            asked.push(host);
            rounds.failed(host, down());
        }
        assert_eq!(asked, [1, 0, 1, 0]);
        let error = rounds.into_error("r".into());
        assert!(error.is_retryable());
        assert!(error.to_string().contains("h0: down; h1: down"), "{error}");
    }

    #[tokio::test]
    async fn a_host_without_it_is_not_asked_twice() {
        let (names, policy) = (names(3), policy(2));
        let mut rounds = Rounds::new(&policy, &names, 0);
        let mut asked = Vec::new();
        while let Some(host) = rounds.next().await {
            asked.push(host);
            let kind = match host {
                1 => FailureKind::NotFound,
                _ => FailureKind::Unavailable,
            };
            rounds.failed(host, Failure::new(kind, "x"));
        }
        assert_eq!(asked, [0, 1, 2, 0, 2]);
    }

    #[tokio::test]
    async fn waits_are_bounded_and_grow() {
        let (names, policy) = (names(1), policy(4));
        let mut rounds = Rounds::new(&policy, &names, 0);
        let mut waits = Vec::new();
        let mut before = tokio::time::Instant::now();
        while let Some(host) = rounds.next().await {
            waits.push(before.elapsed().as_millis());
            before = tokio::time::Instant::now();
            let retry_after = (waits.len() == 3).then(|| Duration::from_millis(300));
            let kind = FailureKind::RateLimited { retry_after };
            rounds.failed(host, Failure::new(kind, "slow"));
        }
        assert_eq!(waits.len(), 4);
        assert!(waits[1] >= 20 && waits[2] >= 40, "{waits:?}");
        assert!(waits[3] >= 300, "{waits:?}");
        let mut rounds = Rounds::new(&policy, &names, 0);
        assert_eq!(rounds.next().await, Some(0));
        let retry_after = Some(Duration::from_millis(401));
        rounds.failed(
            0,
            Failure::new(FailureKind::RateLimited { retry_after }, "hour"),
        );
        assert_eq!(rounds.next().await, None);
    }
}
