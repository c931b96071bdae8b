//! `PodSandboxConfig` to [`PodSpec`]. Every field of every message is named here: used, or refused.

use nexcage_cri_api::v1;
use nexcage_sandbox::NamespaceMode;

use super::pod_limits::{pod_limits, pod_overhead};
use super::user_namespace::user_namespace;
use crate::cri::invalid::InvalidField;
use crate::pods::{Dns, PodSpec, PortMapping, Protocol};

/// Longest host name that the kernel's `sethostname(2)` takes, in bytes.
const HOSTNAME_MAX: usize = 63;

/// Turns the message into a pod's specification.
///
/// # Errors
///
/// [`InvalidField`] names the first field that is missing, contradictory or not supported.
pub(crate) fn pod_spec(config: v1::PodSandboxConfig) -> Result<PodSpec, InvalidField> {
    let v1::PodSandboxConfig {
        metadata,
        hostname,
        log_directory,
        dns_config,
        port_mappings,
        labels,
        annotations,
        linux,
        windows,
    } = config;
    let v1::PodSandboxMetadata {
        name,
        uid,
        namespace,
        attempt,
    } = metadata.ok_or_else(|| InvalidField::invalid("config.metadata", "is missing"))?;
    // Together they are the name that retries are told by.
    for (field, value) in [("name", &name), ("namespace", &namespace), ("uid", &uid)] {
        if value.is_empty() {
            return Err(InvalidField::invalid(
                format!("config.metadata.{field}"),
                "is empty",
            ));
        }
        if value.chars().any(char::is_control) {
            return Err(InvalidField::invalid(
                format!("config.metadata.{field}"),
                "contains a control character",
            ));
        }
    }
    if windows.is_some() {
        return Err(InvalidField::unsupported(
            "config.windows",
            "this is a Linux node",
        ));
    }
    check_hostname(&hostname)?;
    check_log_directory(&log_directory)?;
    let mut spec = PodSpec {
        name,
        uid,
        namespace,
        attempt,
        hostname,
        log_directory,
        dns: dns_config.map(dns).transpose()?,
        port_mappings: port_mappings
            .into_iter()
            .enumerate()
            .map(|(n, mapping)| port_mapping(n, mapping))
            .collect::<Result<_, _>>()?,
        labels: labels.into_iter().collect(),
        annotations: annotations.into_iter().collect(),
        ..PodSpec::default()
    };
    linux_sandbox(linux.unwrap_or_default(), &mut spec)?;
    Ok(spec)
}

fn check_hostname(hostname: &str) -> Result<(), InvalidField> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if hostname.len() > HOSTNAME_MAX || !hostname.chars().all(legal) {
        return Err(InvalidField::invalid(
            "config.hostname",
            format!("is not a host name of at most {HOSTNAME_MAX} letters, digits, '-' and '.'"),
        ));
    }
    Ok(())
}

fn check_log_directory(path: &str) -> Result<(), InvalidField> {
    let invalid = |problem: &str| Err(InvalidField::invalid("config.log_directory", problem));
    match path {
        "" => Ok(()),
        p if !p.starts_with('/') => invalid("is not an absolute path"),
        p if p.split('/').any(|part| part == "..") => invalid("contains '..'"),
        p if p.contains('\0') => invalid("contains a NUL byte"),
        _ => Ok(()),
    }
}

/// Each becomes a word of resolv.conf, where a blank or a line break would make two of it.
fn dns(config: v1::DnsConfig) -> Result<Dns, InvalidField> {
    let v1::DnsConfig {
        servers,
        searches,
        options,
    } = config;
    let words = [
        ("servers", &servers),
        ("searches", &searches),
        ("options", &options),
    ];
    for (field, words) in words {
        let bad = |word: &String| {
            word.is_empty() || word.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        if let Some(n) = words.iter().position(bad) {
            return Err(InvalidField::invalid(
                format!("config.dns_config.{field}[{n}]"),
                "is empty or contains a blank or a control character",
            ));
        }
    }
    Ok(Dns {
        servers,
        searches,
        options,
    })
}

fn port_mapping(n: usize, mapping: v1::PortMapping) -> Result<PortMapping, InvalidField> {
    let v1::PortMapping {
        protocol,
        container_port,
        host_port,
        host_ip,
    } = mapping;
    let field = |name: &str| format!("config.port_mappings[{n}].{name}");
    let port = |name: &str, value: i32| {
        u16::try_from(value)
            .map_err(|_| InvalidField::invalid(field(name), "is not a port (0 to 65535)"))
    };
    let protocol = match v1::Protocol::try_from(protocol) {
        Ok(v1::Protocol::Tcp) => Protocol::Tcp,
        Ok(v1::Protocol::Udp) => Protocol::Udp,
        Ok(v1::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => {
            return Err(InvalidField::invalid(
                field("protocol"),
                "is none of TCP, UDP and SCTP",
            ));
        }
    };
    let host_ip = match host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            InvalidField::invalid(field("host_ip"), format!("{text:?} is not an IP address"))
        })?),
    };
    Ok(PortMapping {
        protocol,
        container_port: port("container_port", container_port)?,
        host_port: port("host_port", host_port)?,
        host_ip,
    })
}

fn linux_sandbox(
    config: v1::LinuxPodSandboxConfig,
    spec: &mut PodSpec,
) -> Result<(), InvalidField> {
    let v1::LinuxPodSandboxConfig {
        cgroup_parent,
        security_context,
        sysctls,
        overhead,
        resources,
    } = config;
    if cgroup_parent
        .split('/')
        .any(|part| part == ".." || part == ".")
    {
        return Err(InvalidField::invalid(
            "config.linux.cgroup_parent",
            "contains '.' or '..'",
        ));
    }
    spec.cgroup_parent = cgroup_parent;
    spec.sysctls = sysctls.into_iter().collect();
    spec.resources = pod_limits("config.linux.resources", resources.unwrap_or_default())?;
    spec.overhead = pod_overhead("config.linux.overhead", overhead.unwrap_or_default())?;
    security_context_of(security_context.unwrap_or_default(), spec)
}

fn security_context_of(
    context: v1::LinuxSandboxSecurityContext,
    spec: &mut PodSpec,
) -> Result<(), InvalidField> {
    const AT: &str = "config.linux.security_context";
    #[allow(deprecated, reason = "older kubelets still send seccomp_profile_path")]
    let v1::LinuxSandboxSecurityContext {
        namespace_options,
        selinux_options,
        run_as_user,
        run_as_group,
        // What follows describes a pause container that runs an image's process. The sandbox's own process is
        // nexcage's, always read-only and with no capability in the host.
        readonly_rootfs: _,
        supplemental_groups: _,
        supplemental_groups_policy: _,
        seccomp: _,
        apparmor: _,
        seccomp_profile_path: _,
        privileged,
    } = context;
    if run_as_group.is_some() && run_as_user.is_none() {
        return Err(InvalidField::invalid(
            format!("{AT}.run_as_group"),
            "is given without run_as_user",
        ));
    }
    // kubelet passes a pod's SELinux options to every runtime; without SELinux in the
    // kernel they mean nothing, as in containerd and CRI-O.
    drop(selinux_options);
    spec.privileged = privileged;
    namespaces(namespace_options.unwrap_or_default(), spec)
}

fn namespaces(options: v1::NamespaceOption, spec: &mut PodSpec) -> Result<(), InvalidField> {
    const AT: &str = "config.linux.security_context.namespace_options";
    let v1::NamespaceOption {
        network,
        pid,
        ipc,
        target_id,
        userns_options,
    } = options;
    let mode = |name: &str, value: i32| match v1::NamespaceMode::try_from(value) {
        Ok(v1::NamespaceMode::Pod) => Ok(NamespaceMode::Pod),
        Ok(v1::NamespaceMode::Node) => Ok(NamespaceMode::Node),
        _ => Err(InvalidField::invalid(
            format!("{AT}.{name}"),
            "of a pod sandbox must be POD or NODE",
        )),
    };
    spec.network = mode("network", network)?;
    spec.ipc = mode("ipc", ipc)?;
    // CONTAINER is the usual value: containers do not share one. The sandbox has its own either way.
    spec.shared_pid = v1::NamespaceMode::try_from(pid) == Ok(v1::NamespaceMode::Pod);
    spec.pid = match v1::NamespaceMode::try_from(pid) {
        Ok(v1::NamespaceMode::Container) => NamespaceMode::Pod,
        _ => mode("pid", pid)?,
    };
    if !target_id.is_empty() {
        return Err(InvalidField::invalid(
            format!("{AT}.target_id"),
            "has no meaning for a pod sandbox",
        ));
    }
    spec.user_namespace = userns_options.map(user_namespace).transpose()?.flatten();
    Ok(())
}
