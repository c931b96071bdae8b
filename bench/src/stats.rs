//! ListContainerStats: its time, and what it makes others do.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use crate::cri::Client;
use crate::programs::{Started, Watch};
use crate::summary::{Summary, milliseconds};

/// How often it is called.
const CALLS: u32 = 5;

/// How long to wait before each call: as long as kubelet, so that what the server keeps for some seconds is old.
const BETWEEN: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Stats {
    containers: usize,
    calls: u32,
    /// Milliseconds of one call.
    call: Option<Summary>,
    /// Started by whoever, during all calls together; none where the kernel does not tell.
    programs: Option<Started>,
}

impl Stats {
    /// Asks a server that has this many containers.
    pub(crate) async fn ask(client: &Client, containers: usize) -> anyhow::Result<Self> {
        let watch = Watch::begin()?;
        let take = || {
            watch
                .as_ref()
                .map_or_else(|| Ok(Started::new()), Watch::take)
        };
        let mut all = Vec::new();
        let mut programs = Started::new();
        for _ in 0..CALLS {
            tokio::time::sleep(BETWEEN).await;
            take()?;
            let begun = Instant::now();
            let told = client.container_stats().await?;
            all.push(milliseconds(begun.elapsed()));
            ensure!(
                told == containers,
                "ListContainerStats tells of {told} containers, and there are {containers}"
            );
            for (program, times) in take()? {
                *programs.entry(program).or_default() += times;
            }
        }
        Ok(Self {
            containers,
            calls: CALLS,
            call: Summary::of(all),
            programs: watch.map(|_| programs),
        })
    }

    /// How often `zfs` was started for one call; none where the kernel does not tell.
    pub(crate) fn zfs_per_call(&self) -> Option<f64> {
        let zfs = self.programs.as_ref()?.get("zfs").copied();
        Some(f64::from(zfs.unwrap_or(0)) / f64::from(self.calls))
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let containers = self.containers;
        write!(f, "ListContainerStats of {containers} containers: ")?;
        if let Some(Summary { p50, p99, .. }) = &self.call {
            write!(f, "p50 {p50:.1} ms, p99 {p99:.1} ms; ")?;
        }
        let Some(programs) = &self.programs else {
            return f.write_str("the kernel does not tell which programs were started");
        };
        write!(f, "programs started by {} calls: ", self.calls)?;
        if programs.is_empty() {
            return f.write_str("none");
        }
        let each = programs
            .iter()
            .map(|(name, times)| format!("{name} {times}"));
        f.write_str(&each.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(programs: Option<Started>) -> Stats {
        Stats {
            containers: 50,
            calls: 5,
            call: Summary::of(vec![2.0, 1.0]),
            programs,
        }
    }

    #[test]
    fn nothing_started_is_told_from_nothing_known() {
        assert_eq!(stats(None).zfs_per_call(), None);
        assert_eq!(stats(Some(Started::new())).zfs_per_call(), Some(0.0));
        let programs = Started::from([("zfs".to_owned(), 10), ("sh".to_owned(), 1)]);
        let stats = stats(Some(programs));
        assert_eq!(stats.zfs_per_call(), Some(2.0));
        assert_eq!(
            stats.to_string(),
            "ListContainerStats of 50 containers: p50 1.0 ms, p99 2.0 ms; programs started by 5 calls: sh 1, zfs 10"
        );
    }
}
