//! `LinuxContainerResources` of a whole pod to [`PodLimits`]. Every field is named: used, or refused.

use nexcage_cri_api::v1;

use crate::cri::invalid::InvalidField;
use crate::pods::PodLimits;

/// What the kernel takes as a period of `cpu.max`, in microseconds.
const PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;

/// The least quota that it takes.
const LEAST_QUOTA: i64 = 1_000;

/// Keys of `unified` that kubelet sends with a pod's limits and that are not for the cgroup of the pod: the first is for each
/// container, which has it too; the others are in kubelet's own cgroup and hold for all below it.
const NOT_FOR_THE_POD: [&str; 3] = ["memory.oom.group", "memory.low", "memory.min"];

/// Turns limits into the domain's. Zero is CRI's word for "not given". Any negative number is no limit: kubelet takes the
/// overhead off the -1 of a pod without one.
///
/// # Errors
///
/// [`InvalidField`], with names below `field`.
pub(crate) fn pod_limits(
    field: &str,
    limits: v1::LinuxContainerResources,
) -> Result<PodLimits, InvalidField> {
    let v1::LinuxContainerResources {
        cpu_period,
        cpu_quota,
        cpu_shares,
        memory_limit_in_bytes,
        oom_score_adj,
        cpuset_cpus,
        cpuset_mems,
        hugepage_limits,
        unified,
        memory_swap_limit_in_bytes,
    } = limits;
    let at = |name: &str| format!("{field}.{name}");
    let for_containers = |name: &str| {
        let problem = "is not supported for a whole pod; set it for its containers";
        InvalidField::unsupported(at(name), problem)
    };
    if oom_score_adj != 0 {
        return Err(for_containers("oom_score_adj"));
    }
    if !cpuset_cpus.is_empty() {
        return Err(for_containers("cpuset_cpus"));
    }
    if !cpuset_mems.is_empty() {
        return Err(for_containers("cpuset_mems"));
    }
    // As for containers: a limit of 0 for every page size.
    if let Some(n) = hugepage_limits.iter().position(|limit| limit.limit > 0) {
        return Err(for_containers(&format!("hugepage_limits[{n}]")));
    }
    if let Some(key) = unified
        .keys()
        .find(|key| !NOT_FOR_THE_POD.contains(&key.as_str()))
    {
        return Err(for_containers(&format!("unified[{key:?}]")));
    }
    let limits = PodLimits {
        memory_bytes: limit(memory_limit_in_bytes),
        memory_swap_bytes: limit(memory_swap_limit_in_bytes),
        cpu_quota_us: limit(cpu_quota),
        cpu_period_us: positive(&at("cpu_period"), cpu_period)?,
        cpu_shares: positive(&at("cpu_shares"), cpu_shares)?,
    };
    if limits
        .cpu_period_us
        .is_some_and(|period| !PERIODS.contains(&period))
    {
        let problem = format!(
            "{cpu_period} is not between {} and {}",
            PERIODS.start(),
            PERIODS.end()
        );
        return Err(InvalidField::invalid(at("cpu_period"), problem));
    }
    if (1..LEAST_QUOTA).contains(&cpu_quota) {
        let problem =
            format!("{cpu_quota} is less than {LEAST_QUOTA}, the least that the kernel takes");
        return Err(InvalidField::invalid(at("cpu_quota"), problem));
    }
    if limits.swap_contradicts_memory() {
        let problem =
            "counts memory and swap together: memory_limit_in_bytes must be given, and not be more";
        return Err(InvalidField::invalid(
            at("memory_swap_limit_in_bytes"),
            problem,
        ));
    }
    Ok(limits)
}

/// As [`pod_limits`]; an overhead has a size.
///
/// # Errors
///
/// [`InvalidField`], with names below `field`.
pub(crate) fn pod_overhead(
    field: &str,
    overhead: v1::LinuxContainerResources,
) -> Result<PodLimits, InvalidField> {
    for (name, value) in [
        ("cpu_quota", overhead.cpu_quota),
        ("memory_limit_in_bytes", overhead.memory_limit_in_bytes),
        (
            "memory_swap_limit_in_bytes",
            overhead.memory_swap_limit_in_bytes,
        ),
    ] {
        if value < 0 {
            let problem = format!("{value} is negative, and an overhead has a size");
            return Err(InvalidField::invalid(format!("{field}.{name}"), problem));
        }
    }
    pod_limits(field, overhead)
}

fn limit(value: i64) -> Option<i64> {
    match value {
        0 => None,
        ..0 => Some(-1),
        1.. => Some(value),
    }
}

fn positive(field: &str, value: i64) -> Result<Option<u64>, InvalidField> {
    match u64::try_from(value) {
        Ok(value) => Ok(Some(value).filter(|v| *v > 0)),
        Err(_) => Err(InvalidField::invalid(field, format!("{value} is negative"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::invalid::InvalidKind;

    type Change = fn(&mut v1::LinuxContainerResources);

    fn with(change: Change) -> Result<PodLimits, InvalidField> {
        let mut limits = v1::LinuxContainerResources::default();
        change(&mut limits);
        pod_limits("resources", limits)
    }

    #[test]
    fn what_kubelet_sends() {
        let sent = with(|r| {
            r.cpu_period = 100_000;
            r.cpu_quota = 50_000;
            r.cpu_shares = 512;
            r.memory_limit_in_bytes = 1 << 30;
            r.unified.insert("memory.oom.group".into(), "1".into());
            r.hugepage_limits = vec![v1::HugepageLimit {
                page_size: "2MB".into(),
                limit: 0,
            }];
        });
        let expected = PodLimits {
            memory_bytes: Some(1 << 30),
            memory_swap_bytes: None,
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            cpu_shares: Some(512),
        };
        assert_eq!(sent.unwrap(), expected);
        assert_eq!(with(|_| {}).unwrap(), PodLimits::default());
    }

    #[test]
    fn negative_is_unlimited() {
        // -1 less an overhead of 10 MiB.
        let sent = with(|r| r.memory_limit_in_bytes = -1 - (10 << 20)).unwrap();
        assert_eq!(sent.memory_bytes, Some(-1));
        assert_eq!(with(|r| r.cpu_quota = -1).unwrap().cpu_quota_us, Some(-1));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let cases: [(Change, &str, InvalidKind); 12] = [
            (|r| r.cpu_period = -1, "cpu_period", InvalidKind::Invalid),
            (|r| r.cpu_period = 999, "cpu_period", InvalidKind::Invalid),
            (
                |r| r.cpu_period = 1_000_001,
                "cpu_period",
                InvalidKind::Invalid,
            ),
            (|r| r.cpu_quota = 999, "cpu_quota", InvalidKind::Invalid),
            (|r| r.cpu_shares = -2, "cpu_shares", InvalidKind::Invalid),
            (
                |r| r.memory_swap_limit_in_bytes = 5,
                "memory_swap_limit_in_bytes",
                InvalidKind::Invalid,
            ),
            (
                |r| r.oom_score_adj = 1,
                "oom_score_adj",
                InvalidKind::Unsupported,
            ),
            (
                |r| r.cpuset_cpus = "0".into(),
                "cpuset_cpus",
                InvalidKind::Unsupported,
            ),
            (
                |r| r.cpuset_mems = "0".into(),
                "cpuset_mems",
                InvalidKind::Unsupported,
            ),
            (
                |r| {
                    r.hugepage_limits = vec![v1::HugepageLimit {
                        page_size: "2MB".into(),
                        limit: 1,
                    }];
                },
                "hugepage_limits[0]",
                InvalidKind::Unsupported,
            ),
            (
                |r| drop(r.unified.insert("memory.high".into(), "1".into())),
                "unified[\"memory.high\"]",
                InvalidKind::Unsupported,
            ),
            (
                |r| (r.memory_limit_in_bytes, r.memory_swap_limit_in_bytes) = (6, 5),
                "memory_swap_limit_in_bytes",
                InvalidKind::Invalid,
            ),
        ];
        for (change, field, kind) in cases {
            let refused = with(change).unwrap_err();
            assert_eq!(
                (refused.field.as_str(), refused.kind),
                (&*format!("resources.{field}"), kind)
            );
        }
    }

    #[test]
    fn an_overhead_is_never_unlimited() {
        let overhead = v1::LinuxContainerResources {
            memory_limit_in_bytes: -1,
            ..Default::default()
        };
        let refused = pod_overhead("overhead", overhead).unwrap_err();
        assert_eq!(refused.field, "overhead.memory_limit_in_bytes");
    }
}
