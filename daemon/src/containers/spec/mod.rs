//! The OCI configuration of a container, as a pure function of what was asked for, the image, the pod and the
//! machine.
//!
//! The semantics are those of containerd's CRI plugin, because that is what users' pods were written against: how
//! commands and environments merge, which capabilities and mounts a container has, what privileged
//! means. Where a pod is LXC there is one difference: namespaces of the pod are joined by path, and a namespace of
//! the host is simply not in the list.
//!
//! Nothing here touches the machine. What has to be looked up (users, devices, profiles, resolved paths)
//! comes in through [`SpecInput`].

mod apparmor;
mod capabilities;
mod error;
mod input;
mod mounts;
mod namespaces;
mod process;
mod propagation;
mod resources;

#[cfg(test)]
mod crun_tests;
#[cfg(test)]
mod tests;

use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, LinuxSeccomp,
    RootBuilder, Spec, SpecBuilder,
};

use super::config::{ContainerSpec, SeccompProfile};
use crate::cri::InvalidField;

pub(crate) use capabilities::DEFAULT_CAPABILITIES;
pub(crate) use capabilities::capabilities_from_mask;
pub(crate) use capabilities::capability;
pub(crate) use error::SpecError;
pub(crate) use input::AppArmorFacts;
pub(crate) use input::DeviceKind;
pub(crate) use input::HostDevice;
pub(crate) use input::ImageVolumeMount;
pub(crate) use input::NodeFacts;
pub(crate) use input::SandboxFacts;
pub(crate) use input::SpecInput;
pub(crate) use mounts::image_volumes;
pub(crate) use process::stop_signal;
pub(crate) use propagation::check_propagation;
pub(crate) use propagation::file_system_of;
pub(crate) use resources::linux_resources;

/// Version of the OCI runtime specification that the result conforms to; the newest crun 1.8 knows.
const OCI_VERSION: &str = "1.0.2";

/// Annotations that order crun about. CRI's are for kubelet, and "SHOULD NOT influence runtime
/// behaviour".
const CRUN_ANNOTATIONS: [&str; 2] = ["run.oci.", "org.criu."];

/// Builds the configuration.
///
/// # Errors
///
/// [`SpecError::Refused`] names the field that asks for what this machine, pod or image cannot give.
pub(crate) fn build(input: &SpecInput<'_>) -> Result<Spec, SpecError> {
    let config = input.config;
    if config.security.privileged && !input.sandbox.privileged {
        let field = "config.linux.security_context.privileged";
        let problem = "the pod sandbox was not made for privileged containers";
        return Err(InvalidField::invalid(field, problem).into());
    }
    let root = RootBuilder::default()
        .path(input.rootfs.as_std_path())
        .readonly(read_only_rootfs(input))
        .build()?;
    let mut spec = SpecBuilder::default()
        .version(OCI_VERSION)
        .root(root)
        .process(process::process(input)?)
        .mounts(mounts::mounts(input)?)
        .linux(linux(input)?)
        .build()?;
    spec.set_annotations(Some(
        config
            .annotations
            .iter()
            .filter(|(key, _)| {
                !CRUN_ANNOTATIONS
                    .iter()
                    .any(|prefix| key.starts_with(prefix))
            })
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    ));
    // Builders start from a container of their own taste.
    spec.set_hostname(None);
    spec.set_domainname(None);
    Ok(spec)
}

fn read_only_rootfs(input: &SpecInput<'_>) -> bool {
    let security = &input.config.security;
    security.readonly_rootfs || (input.node.read_only_rootfs && !security.privileged)
}

fn linux(input: &SpecInput<'_>) -> Result<Linux, SpecError> {
    let security = &input.config.security;
    let devices = input
        .devices
        .iter()
        .map(device)
        .collect::<Result<Vec<_>, _>>()?;
    let (masked, readonly) = match security.privileged {
        true => (Vec::new(), Vec::new()),
        false => (
            security.masked_paths.clone(),
            security.readonly_paths.clone(),
        ),
    };
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces::namespaces(input)?)
        .devices(devices)
        .masked_paths(masked)
        .readonly_paths(readonly)
        .build()?;
    linux.set_uid_mappings(None).set_gid_mappings(None);
    linux.set_seccomp(seccomp(input)?);
    linux.set_rootfs_propagation(mounts::rootfs_propagation(input.config).map(str::to_owned));
    linux.set_resources(None);
    linux.set_cgroups_path(None);
    if let Some(cgroup) = input.cgroup {
        let mut limits = linux_resources(&input.config.resources, input.node)?;
        limits.set_devices(Some(resources::device_rules(input)?));
        linux.set_resources(Some(limits));
        linux.set_cgroups_path(Some(cgroup.into()));
    }
    Ok(linux)
}

fn device(device: &HostDevice) -> Result<LinuxDevice, SpecError> {
    let device = LinuxDeviceBuilder::default()
        .path(device.path.as_std_path())
        .typ(device_type(device.kind))
        .major(i64::from(device.major))
        .minor(i64::from(device.minor))
        .file_mode(device.mode)
        .uid(device.uid)
        .gid(device.gid)
        .build()?;
    Ok(device)
}

fn device_type(kind: DeviceKind) -> LinuxDeviceType {
    match kind {
        DeviceKind::Block => LinuxDeviceType::B,
        DeviceKind::Char => LinuxDeviceType::C,
    }
}

/// The filter for the capabilities that the container ends up with.
fn seccomp(input: &SpecInput<'_>) -> Result<Option<LinuxSeccomp>, SpecError> {
    let ContainerSpec { security, .. } = input.config;
    if security.privileged {
        return Ok(None);
    }
    let profile = match &security.seccomp {
        SeccompProfile::Unconfined => None,
        SeccompProfile::RuntimeDefault => input.node.default_seccomp.as_ref(),
        SeccompProfile::Localhost(path) => Some(input.localhost_seccomp.ok_or_else(|| {
            let field = "config.linux.security_context.seccomp.localhost_ref";
            InvalidField::invalid(field, format!("the profile {path} has not been read"))
        })?),
    };
    let capabilities = capabilities::sets(input)?.bounding;
    let resolved = profile.map(|p| p.resolve(input.node.seccomp_target, &capabilities));
    Ok(resolved.transpose()?)
}
