//! What a pod may use: what its client says, and what is made of it.
//!
//! CRI's `resources` of a pod are a sum over those of its containers that have limits. Where one container has none, the
//! pod has none either, though the sum is not zero: kubelet then gives its own cgroup of the pod no limit, and so
//! does nexcage. `overhead` comes on top, as in kubelet's cgroup.

use camino::Utf8Path;
use nexcage_sandbox::PodResources;
use serde::{Deserialize, Serialize};

/// CFS period of kubelet and of the kernel, in microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// Limits as a client gives them. `None` was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PodLimits {
    /// Bytes; negative is unlimited.
    pub(crate) memory_bytes: Option<i64>,
    /// Memory and swap together, in bytes; negative is unlimited.
    pub(crate) memory_swap_bytes: Option<i64>,
    /// Microseconds of each period; negative is unlimited.
    pub(crate) cpu_quota_us: Option<i64>,
    /// Period in microseconds.
    pub(crate) cpu_period_us: Option<u64>,
    /// Relative weight, 1024 for one CPU.
    pub(crate) cpu_shares: Option<u64>,
}

impl PodLimits {
    /// The limits after an update: what it gives replaces, what it leaves out stays.
    pub(crate) fn updated(&self, new: &Self) -> Self {
        Self {
            memory_bytes: new.memory_bytes.or(self.memory_bytes),
            memory_swap_bytes: new.memory_swap_bytes.or(self.memory_swap_bytes),
            cpu_quota_us: new.cpu_quota_us.or(self.cpu_quota_us),
            cpu_period_us: new.cpu_period_us.or(self.cpu_period_us),
            cpu_shares: new.cpu_shares.or(self.cpu_shares),
        }
    }

    /// Whether swap is limited, and to less than memory and swap together can be.
    pub(crate) fn swap_contradicts_memory(&self) -> bool {
        match (self.memory_bytes, self.memory_swap_bytes) {
            (Some(memory), Some(both @ 1..)) => memory < 0 || both < memory,
            (None, Some(1..)) => true,
            _ => false,
        }
    }
}

/// What kubelet limits in its own cgroup of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Above {
    /// `memory.max` is a number.
    pub(crate) memory: bool,
    /// `cpu.max` has a quota.
    pub(crate) cpu: bool,
}

impl Above {
    /// For pods that are not in a cgroup of kubelet: what their client says is meant.
    pub(crate) const UNKNOWN: Self = Self {
        memory: true,
        cpu: true,
    };

    /// Reads the cgroup of a pod that kubelet has made. What cannot be read is unknown.
    pub(crate) async fn read(cgroup: &Utf8Path) -> Self {
        let is_limited = async |file: &str| {
            let text = tokio::fs::read_to_string(cgroup.join(file)).await;
            text.map_or(true, |text| !text.starts_with("max"))
        };
        Self {
            memory: is_limited("memory.max").await,
            cpu: is_limited("cpu.max").await,
        }
    }
}

/// Whether kubelet has made this cgroup for the pod with this uid: `/kubepods/burstable/pod<uid>`,
/// `kubepods-burstable-pod<uid>.slice` with `_` for `-`.
pub(crate) fn is_kubelets(cgroup_parent: &str, uid: &str) -> bool {
    let name = cgroup_parent.trim_end_matches('/').rsplit('/').next();
    let name = name.unwrap_or_default();
    let (name, uid) = match name.strip_suffix(".slice") {
        Some(slice) => (slice, uid.replace('-', "_")),
        None => (name, uid.to_owned()),
    };
    let rest = name.strip_suffix(&format!("pod{uid}"));
    !uid.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('-'))
}

/// The limits of a new pod's cgroup.
pub(crate) fn effective(resources: &PodLimits, overhead: &PodLimits, above: Above) -> PodResources {
    let given = PodLimits {
        memory_bytes: resources.memory_bytes.filter(|_| above.memory),
        memory_swap_bytes: resources.memory_swap_bytes.filter(|_| above.memory),
        cpu_quota_us: resources.cpu_quota_us.filter(|_| above.cpu),
        ..resources.clone()
    };
    changed(&PodResources::default(), &given, overhead)
}

/// The limits of a pod's cgroup after a change: what `resources` gives replaces, what it leaves out stays. Here it is
/// no sum: kubelet gives the limits that its own cgroup of the pod is about to have, less the overhead.
pub(crate) fn changed(
    old: &PodResources,
    resources: &PodLimits,
    overhead: &PodLimits,
) -> PodResources {
    let (cpu_quota_us, cpu_period_us) = quota(old, resources, overhead);
    PodResources {
        memory_bytes: match resources.memory_bytes {
            None => old.memory_bytes,
            Some(given) => size(given).map(|bytes| plus(bytes, overhead.memory_bytes)),
        },
        swap_bytes: match resources.memory_swap_bytes {
            None => old.swap_bytes,
            // With no limit of memory there is nothing that swap could be the rest of.
            Some(both) => size(both)
                .zip(resources.memory_bytes.and_then(size))
                .map(|(both, memory)| both.saturating_sub(memory)),
        },
        cpu_quota_us,
        cpu_period_us,
        cpu_shares: match resources.cpu_shares {
            None => old.cpu_shares,
            Some(shares) => Some(shares.saturating_add(overhead.cpu_shares.unwrap_or(0))),
        },
    }
}

/// Quota and period; a period without a quota means nothing.
fn quota(
    old: &PodResources,
    resources: &PodLimits,
    overhead: &PodLimits,
) -> (Option<u64>, Option<u64>) {
    let period = resources
        .cpu_period_us
        .or(old.cpu_period_us)
        .unwrap_or(DEFAULT_PERIOD_US);
    let quota = match resources.cpu_quota_us {
        None => old.cpu_quota_us,
        Some(given) => size(given).map(|quota| {
            let more = overhead.cpu_quota_us.and_then(size).unwrap_or(0);
            let of = overhead.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US).max(1);
            let scaled = u128::from(more) * u128::from(period) / u128::from(of);
            quota.saturating_add(u64::try_from(scaled).unwrap_or(u64::MAX))
        }),
    };
    (quota, quota.map(|_| period))
}

/// A limit that is one.
fn size(given: i64) -> Option<u64> {
    u64::try_from(given).ok()
}

fn plus(value: u64, more: Option<i64>) -> u64 {
    value.saturating_add(more.and_then(size).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: i64 = 1 << 20;

    fn limits(memory: i64, quota: i64) -> PodLimits {
        PodLimits {
            memory_bytes: Some(memory),
            cpu_quota_us: Some(quota),
            cpu_period_us: Some(100_000),
            cpu_shares: Some(512),
            ..PodLimits::default()
        }
    }

    #[test]
    fn the_overhead_comes_on_top() {
        let overhead = PodLimits {
            cpu_period_us: Some(50_000),
            ..limits(10 * MIB, 5_000)
        };
        let both = effective(&limits(100 * MIB, 20_000), &overhead, Above::UNKNOWN);
        assert_eq!(both.memory_bytes, Some(110 << 20));
        assert_eq!(
            both.cpu_quota_us.zip(both.cpu_period_us),
            Some((30_000, 100_000))
        );
        assert_eq!(both.cpu_shares, Some(1024));
        let alone = effective(&PodLimits::default(), &overhead, Above::UNKNOWN);
        assert_eq!(alone, PodResources::default(), "an overhead limits nothing");
    }

    #[test]
    fn what_is_unlimited_is_no_limit() {
        assert_eq!(
            effective(&limits(-1, -1), &PodLimits::default(), Above::UNKNOWN),
            PodResources {
                cpu_shares: Some(512),
                ..PodResources::default()
            }
        );
    }

    #[test]
    fn a_sum_over_some_containers_is_no_limit_of_the_pod() {
        let above = Above {
            memory: false,
            cpu: true,
        };
        let some = effective(&limits(100 * MIB, 20_000), &PodLimits::default(), above);
        assert_eq!((some.memory_bytes, some.cpu_quota_us), (None, Some(20_000)));
        let above = Above {
            memory: true,
            cpu: false,
        };
        let some = effective(&limits(100 * MIB, 20_000), &PodLimits::default(), above);
        assert_eq!(
            (some.memory_bytes, some.cpu_quota_us),
            (Some(100 << 20), None)
        );
        assert_eq!(some.cpu_period_us, None);
    }

    #[test]
    fn swap_is_what_is_beyond_memory() {
        let with = |memory, both| PodLimits {
            memory_bytes: memory,
            memory_swap_bytes: both,
            ..PodLimits::default()
        };
        let swap = |limits: &PodLimits| {
            effective(limits, &PodLimits::default(), Above::UNKNOWN).swap_bytes
        };
        assert_eq!(swap(&with(Some(10), Some(30))), Some(20));
        assert_eq!(swap(&with(Some(10), Some(10))), Some(0));
        assert_eq!(swap(&with(Some(10), Some(-1))), None);
        for bad in [
            with(Some(10), Some(9)),
            with(Some(-1), Some(9)),
            with(None, Some(9)),
        ] {
            assert!(bad.swap_contradicts_memory(), "{bad:?}");
        }
        for good in [
            with(Some(10), Some(10)),
            with(Some(10), Some(-1)),
            with(None, Some(-1)),
        ] {
            assert!(!good.swap_contradicts_memory(), "{good:?}");
        }
    }

    #[test]
    fn kubelets_cgroups_are_told_by_the_uid_of_the_pod() {
        let uid = "0a1b-2c";
        for parent in [
            "/kubepods/burstable/pod0a1b-2c",
            "/kubepods/pod0a1b-2c/",
            "/kubepods.slice/kubepods-pod0a1b_2c.slice",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b_2c.slice",
        ] {
            assert!(is_kubelets(parent, uid), "{parent}");
        }
        for parent in [
            "",
            "/",
            "/kubepods",
            "/kubepods/mypod0a1b-2c",
            "/kubepods/pod0a1b-2c/x",
        ] {
            assert!(!is_kubelets(parent, uid), "{parent}");
        }
        assert!(!is_kubelets("/kubepods/pod", ""));
    }

    #[tokio::test]
    async fn kubelets_limits_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Utf8Path::from_path(dir.path()).unwrap();
        assert_eq!(Above::read(cgroup).await, Above::UNKNOWN, "no such files");
        std::fs::write(cgroup.join("memory.max"), "max\n").unwrap();
        std::fs::write(cgroup.join("cpu.max"), "20000 100000\n").unwrap();
        let expected = Above {
            memory: false,
            cpu: true,
        };
        assert_eq!(Above::read(cgroup).await, expected);
    }

    #[test]
    fn a_change_replaces_what_it_names() {
        let old = effective(
            &limits(100 * MIB, 20_000),
            &PodLimits::default(),
            Above::UNKNOWN,
        );
        let memory = PodLimits {
            memory_bytes: Some(200 * MIB),
            ..PodLimits::default()
        };
        let overhead = limits(10 * MIB, 5_000);
        assert_eq!(
            changed(&old, &memory, &overhead),
            PodResources {
                memory_bytes: Some(210 << 20),
                ..old.clone()
            }
        );
        let unlimited = PodLimits {
            cpu_quota_us: Some(-1),
            ..PodLimits::default()
        };
        assert_eq!(
            changed(&old, &unlimited, &overhead),
            PodResources {
                cpu_quota_us: None,
                cpu_period_us: None,
                ..old.clone()
            }
        );
        assert_eq!(changed(&old, &PodLimits::default(), &overhead), old);
    }

    proptest! {
        #[test]
        fn an_update_gives_every_limit_it_names(
            old in prop::option::of(-1..1_000_i64),
            new in prop::option::of(-1..1_000_i64),
        ) {
            let limits = |value| PodLimits { memory_bytes: value, cpu_quota_us: value, ..PodLimits::default() };
            let both = limits(old).updated(&limits(new));
            prop_assert_eq!(both.memory_bytes, new.or(old));
            prop_assert_eq!(both.cpu_quota_us, new.or(old));
        }

        #[test]
        fn no_limits_overflow(memory in 1_i64.., quota in 1_i64.., period in 1_u64.., more in 1_i64.., of in 0_u64..) {
            let resources = PodLimits { cpu_period_us: Some(period), ..limits(memory, quota) };
            let overhead = PodLimits { cpu_period_us: Some(of), ..limits(more, more) };
            let both = effective(&resources, &overhead, Above::UNKNOWN);
            prop_assert!(both.memory_bytes >= u64::try_from(memory).ok());
            prop_assert!(both.cpu_quota_us >= u64::try_from(quota).ok());
        }
    }
}
