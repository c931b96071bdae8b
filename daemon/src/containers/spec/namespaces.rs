//! Which namespaces a container has of its own, joins, or leaves to the host.

use camino::Utf8Path;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType};

use super::{SpecError, SpecInput};
use crate::containers::config::PidMode;
use crate::cri::InvalidField;

const AT: &str = "config.linux.security_context.namespace_options";

/// The list. A namespace that is not in it is the host's.
pub(super) fn namespaces(input: &SpecInput<'_>) -> Result<Vec<LinuxNamespace>, SpecError> {
    let (security, sandbox) = (&input.config.security, input.sandbox);
    let wanted = &security.namespaces;
    agree("network", wanted.host_network, sandbox.network.is_none())?;
    agree("ipc", wanted.host_ipc, sandbox.ipc.is_none())?;
    agree("pid", wanted.pid == PidMode::Node, sandbox.pid.is_none())?;

    let mut list = vec![new(LinuxNamespaceType::Mount)?];
    // A privileged container manages cgroups by the host's paths. Without cgroups of our own there is nothing
    // to hide behind a namespace.
    if input.cgroup.is_some() && !security.privileged {
        list.push(new(LinuxNamespaceType::Cgroup)?);
    }
    for (kind, path) in [
        (LinuxNamespaceType::User, &sandbox.user),
        (LinuxNamespaceType::Network, &sandbox.network),
        (LinuxNamespaceType::Ipc, &sandbox.ipc),
        (LinuxNamespaceType::Uts, &sandbox.uts),
    ] {
        if let Some(path) = path {
            list.push(join(kind, path)?);
        }
    }
    match (&wanted.pid, &sandbox.pid, input.target_pid) {
        (PidMode::Container, ..) => list.push(new(LinuxNamespaceType::Pid)?),
        (PidMode::Pod, Some(path), _) => list.push(join(LinuxNamespaceType::Pid, path)?),
        (PidMode::Target(_), _, Some(path)) => list.push(join(LinuxNamespaceType::Pid, path)?),
        (PidMode::Target(id), _, None) => {
            let problem = format!("container {id:?} does not run in this pod");
            return Err(InvalidField::invalid(format!("{AT}.target_id"), problem).into());
        }
        (PidMode::Pod, None, _) | (PidMode::Node, ..) => {}
    }
    Ok(list)
}

/// A container may not have a host namespace that its pod was not allowed.
fn agree(name: &str, wants_host: bool, pod_has_host: bool) -> Result<(), InvalidField> {
    if wants_host && !pod_has_host {
        let problem = "is NODE, but the pod sandbox has a namespace of its own";
        return Err(InvalidField::invalid(format!("{AT}.{name}"), problem));
    }
    Ok(())
}

fn new(kind: LinuxNamespaceType) -> Result<LinuxNamespace, SpecError> {
    Ok(LinuxNamespaceBuilder::default().typ(kind).build()?)
}

fn join(kind: LinuxNamespaceType, path: &Utf8Path) -> Result<LinuxNamespace, SpecError> {
    Ok(LinuxNamespaceBuilder::default()
        .typ(kind)
        .path(path.as_std_path())
        .build()?)
}
