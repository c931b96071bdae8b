//! Limits, as crun writes them to the container's cgroup.

use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxHugepageLimit,
    LinuxHugepageLimitBuilder, LinuxMemory, LinuxMemoryBuilder, LinuxResources,
    LinuxResourcesBuilder,
};

use super::{NodeFacts, SpecError, SpecInput, device_type};
use crate::containers::config::Resources;
use crate::cri::InvalidField;

const AT: &str = "config.linux.resources";

/// Turns limits into the OCI form, for a new container and for `crun update` alike. Device rules are not among them.
///
/// # Errors
///
/// A limit that this kernel cannot enforce is refused by name.
pub(crate) fn linux_resources(
    limits: &Resources,
    node: &NodeFacts,
) -> Result<LinuxResources, SpecError> {
    let Resources {
        cpu_period_us,
        cpu_quota_us,
        cpu_shares,
        memory_bytes: _,
        memory_swap_bytes: _,
        oom_score_adj: _,
        cpuset_cpus,
        cpuset_mems,
        hugepages: _,
        unified,
    } = limits;
    let mut cpu = LinuxCpuBuilder::default().build()?;
    cpu.set_period(*cpu_period_us);
    cpu.set_quota(*cpu_quota_us);
    cpu.set_shares(*cpu_shares);
    cpu.set_cpus(Some(cpuset_cpus.clone()).filter(|list| !list.is_empty()));
    cpu.set_mems(Some(cpuset_mems.clone()).filter(|list| !list.is_empty()));

    let mut resources = LinuxResourcesBuilder::default()
        .memory(memory(limits, node)?)
        .cpu(cpu)
        .hugepage_limits(hugepages(limits, node)?)
        .build()?;
    resources.set_devices(None);
    let unified = unified
        .iter()
        .map(|(file, value)| (file.clone(), value.clone()));
    resources.set_unified(Some(unified.collect()));
    Ok(resources)
}

/// A memory limit alone is one without swap, as everywhere in Kubernetes.
fn memory(limits: &Resources, node: &NodeFacts) -> Result<LinuxMemory, SpecError> {
    let mut memory = LinuxMemoryBuilder::default().build()?;
    memory.set_limit(limits.memory_bytes);
    let swap = limits.memory_swap_bytes.or(limits.memory_bytes);
    // An update may have changed one of the two.
    if let (Some(memory), Some(both @ 0..)) = (limits.memory_bytes, swap)
        && (memory < 0 || both < memory)
    {
        let problem = "counts memory and swap together, so it cannot be less than memory alone";
        let field = format!("{AT}.memory_swap_limit_in_bytes");
        return Err(InvalidField::invalid(field, problem).into());
    }
    if node.swap_accounting {
        memory.set_swap(swap);
    } else if swap != limits.memory_bytes {
        let problem = "this kernel does not count swap per cgroup";
        let field = format!("{AT}.memory_swap_limit_in_bytes");
        return Err(InvalidField::unsupported(field, problem).into());
    }
    Ok(memory)
}

/// kubelet sends a limit of 0 for every page size, even where the kernel has no such limits.
fn hugepages(limits: &Resources, node: &NodeFacts) -> Result<Vec<LinuxHugepageLimit>, SpecError> {
    let mut list = Vec::new();
    for (n, limit) in limits.hugepages.iter().enumerate() {
        let field = || format!("{AT}.hugepage_limits[{n}]");
        if !node.hugetlb {
            if limit.limit == 0 {
                continue;
            }
            let problem = "this kernel does not limit huge pages per cgroup";
            return Err(InvalidField::unsupported(field(), problem).into());
        }
        let bytes = i64::try_from(limit.limit)
            .map_err(|_| InvalidField::invalid(field(), "does not fit the OCI configuration"))?;
        let page_size = limit.page_size.clone();
        list.push(
            LinuxHugepageLimitBuilder::default()
                .page_size(page_size)
                .limit(bytes)
                .build()?,
        );
    }
    Ok(list)
}

/// Which devices may be opened: all for a privileged container, else those given. crun adds
/// the harmless ones (`null`, `zero`, `tty`, ...).
pub(super) fn device_rules(input: &SpecInput<'_>) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    let privileged = input.config.security.privileged;
    let all = LinuxDeviceCgroupBuilder::default()
        .allow(privileged)
        .access("rwm")
        .build()?;
    let mut rules = vec![all];
    for device in input.devices.iter().filter(|_| !privileged) {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(device_type(device.kind))
            .major(i64::from(device.major))
            .minor(i64::from(device.minor))
            .access(device.permissions.clone())
            .build()?;
        rules.push(rule);
    }
    Ok(rules)
}
