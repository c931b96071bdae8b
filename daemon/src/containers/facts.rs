//! What this node gives to every container, found once at start.

use nexcage_config::{Config, Security};
use oci_spec::runtime::{Capability, PosixRlimit, PosixRlimitBuilder, PosixRlimitType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::seccomp::{self, Profile, SeccompError, Target};
use super::spec::{
    AppArmorFacts, DEFAULT_CAPABILITIES, NodeFacts, capabilities_from_mask, capability,
};
use crate::apparmor;

/// Looks at the kernel and the configuration. Blocking; called at start.
///
/// # Errors
///
/// [`SeccompError`] when the default profile is wanted and cannot be read.
pub(crate) fn node_facts(config: &Config) -> Result<NodeFacts, SeccompError> {
    let security = &config.security;
    Ok(NodeFacts {
        default_capabilities: default_capabilities(security),
        available_capabilities: available_capabilities(),
        no_new_privileges: security.no_new_privileges,
        read_only_rootfs: security.read_only_rootfs,
        default_seccomp: default_seccomp(security)?,
        seccomp_target: Target::this_machine(),
        apparmor: apparmor_facts(security),
        swap_accounting: std::path::Path::new("/sys/fs/cgroup/memory.swap.max").exists()
            || controller("memory") && std::path::Path::new("/proc/swaps").exists(),
        hugetlb: controller("hugetlb"),
        rlimits: file_limit().into_iter().collect(),
    })
}

/// The limit of open files that the daemon was started with, for containers: the daemon raises its own, and a program that
/// closes every file up to its limit must not suffer for that.
fn file_limit() -> Option<PosixRlimit> {
    let limit = getrlimit(Resource::Nofile);
    let unlimited = u64::MAX;
    PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(limit.current.unwrap_or(unlimited))
        .hard(limit.maximum.unwrap_or(unlimited))
        .build()
        .ok()
}

/// Lets the daemon open as many files as it may: it holds one for every pod and every container.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the daemon's limit of open files");
    }
}

fn default_capabilities(security: &Security) -> Vec<Capability> {
    let mut all = DEFAULT_CAPABILITIES.to_vec();
    for extra in &security.capabilities {
        if let Some(capability) = capability(extra.as_str())
            && !all.contains(&capability)
        {
            all.push(capability);
        }
    }
    all
}

fn available_capabilities() -> Vec<Capability> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    capabilities_from_mask(mask.unwrap_or(0))
}

fn default_seccomp(security: &Security) -> Result<Option<Profile>, SeccompError> {
    if !security.seccomp {
        return Ok(None);
    }
    seccomp::load(security.seccomp_profile.path()).map(Some)
}

/// AppArmor as it is now. Blocking.
pub(super) fn apparmor_facts(security: &Security) -> Option<AppArmorFacts> {
    Some(AppArmorFacts {
        default_profile: Some(apparmor::CONTAINERS.name.to_owned()),
        // Where it is hidden no pod is started, nor a container that needs a profile.
        loaded: apparmor::loaded(security).ok()??,
    })
}

/// A cgroup v2 controller that this host offers.
fn controller(name: &str) -> bool {
    std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .is_ok_and(|text| text.split_whitespace().any(|c| c == name))
}
