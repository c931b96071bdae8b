//! Which capabilities a container has (capabilities(7)).

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

use super::{SpecError, SpecInput};
use crate::cri::InvalidField;

/// What a container has that asks for nothing: the same 14 as with Docker and containerd.
pub(crate) const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::SysChroot,
    Capability::Mknod,
    Capability::AuditWrite,
    Capability::Setfcap,
];

/// By number, as in `linux/capability.h`.
const NUMBERED: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The capability with this name, in any case, with or without `CAP_`.
pub(crate) fn capability(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).parse().ok()
}

/// The capabilities of a mask, such as `CapEff` in `/proc/self/status` (proc_pid_status(5)).
pub(crate) fn capabilities_from_mask(mask: u64) -> Vec<Capability> {
    let bits = NUMBERED
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask >> bit & 1 == 1);
    bits.map(|(_, capability)| *capability).collect()
}

/// A container's capabilities.
pub(super) struct Sets {
    /// Bounding, effective and permitted.
    pub(super) bounding: Vec<Capability>,
    /// Ambient, and inheritable because ambient ones must be. No others are inheritable: they would
    /// reach whoever executes a file with inheritable capabilities (CVE-2022-24769).
    pub(super) ambient: Vec<Capability>,
}

impl Sets {
    pub(super) fn to_oci(&self) -> Result<LinuxCapabilities, SpecError> {
        let set = |list: &[Capability]| list.iter().copied().collect::<HashSet<_>>();
        let built = LinuxCapabilitiesBuilder::default()
            .bounding(set(&self.bounding))
            .effective(set(&self.bounding))
            .permitted(set(&self.bounding))
            .inheritable(set(&self.ambient))
            .ambient(set(&self.ambient))
            .build()?;
        Ok(built)
    }
}

/// The default ones, or all, or none; then those to add; then without those to drop.
pub(super) fn sets(input: &SpecInput<'_>) -> Result<Sets, SpecError> {
    let available = &input.node.available_capabilities;
    if input.config.security.privileged {
        return Ok(Sets {
            bounding: available.clone(),
            ambient: Vec::new(),
        });
    }
    let changes = &input.config.security.capabilities;
    for (field, added) in [
        ("add_capabilities", &changes.add),
        ("add_ambient_capabilities", &changes.add_ambient),
    ] {
        if let Some(missing) = added
            .iter()
            .find(|capability| !available.contains(capability))
        {
            let field = format!("config.linux.security_context.capabilities.{field}");
            let problem = format!("the daemon itself does not have CAP_{missing}");
            return Err(InvalidField::unsupported(field, problem).into());
        }
    }
    let dropped = |capability: &Capability| changes.drop.contains(capability);
    let from_start = |capability: &Capability| match (changes.drop_all, changes.add_all) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => input.node.default_capabilities.contains(capability),
    };
    let added = |capability: &Capability| {
        changes.add.contains(capability) || changes.add_ambient.contains(capability)
    };
    let bounding = available
        .iter()
        .copied()
        .filter(|capability| (from_start(capability) || added(capability)) && !dropped(capability));
    let ambient = changes
        .add_ambient
        .iter()
        .copied()
        .filter(|capability| !dropped(capability));
    Ok(Sets {
        bounding: bounding.collect(),
        ambient: ambient.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_by_bit() {
        assert_eq!(capabilities_from_mask(0), []);
        assert_eq!(
            capabilities_from_mask(1 << 40 | 1 << 21 | 1),
            [
                Capability::Chown,
                Capability::SysAdmin,
                Capability::CheckpointRestore
            ]
        );
        // What Docker's default is, as /proc shows it.
        let default: HashSet<_> = capabilities_from_mask(0xa804_25fb).into_iter().collect();
        assert_eq!(default, HashSet::from(DEFAULT_CAPABILITIES));
    }
}
