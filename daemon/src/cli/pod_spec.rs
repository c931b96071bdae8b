//! What `nexcage run` and `nexcage create` ask the runtime for: pure, from the arguments.

use std::collections::HashMap;

use nexcage_cri_api::v1;

use super::args::{Network, PodArgs};
use super::error::CliError;

/// What kubelet hides from and protects against every container that is not privileged; CRI wants it spelled out.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Length of a host name, which the pod's name becomes: hostname(7).
const NAME_MAX: usize = 63;

/// The pod's and its container's name: the given one, or the image's with `suffix`.
///
/// # Errors
///
/// [`CliError::Usage`] if the given one is no host name.
pub(super) fn name(given: Option<&str>, image: &str, suffix: &str) -> Result<String, CliError> {
    let Some(name) = given else {
        return Ok(name_from(image, suffix));
    };
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ends = name.starts_with('-') || name.ends_with('-');
    if name.is_empty() || name.len() > NAME_MAX || ends || !name.bytes().all(legal) {
        return Err(CliError::Usage(format!(
            "--name {name:?} must be at most {NAME_MAX} lower case letters, digits and '-', \
             with no '-' at either end"
        )));
    }
    Ok(name.to_owned())
}

/// The last part of the image's name, as far as it makes a host name.
fn name_from(image: &str, suffix: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    let name = name.split(':').next().unwrap_or_default();
    let legal = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = name
        .chars()
        .map(legal)
        .take(NAME_MAX - 1 - suffix.len())
        .collect();
    match name.trim_matches('-') {
        "" => format!("pod-{suffix}"),
        name => format!("{name}-{suffix}"),
    }
}

/// The pod.
///
/// # Errors
///
/// [`CliError::Usage`] if arguments contradict each other.
pub(super) fn sandbox(
    args: &PodArgs,
    name: &str,
    uid: &str,
) -> Result<v1::PodSandboxConfig, CliError> {
    if args.network == Network::Host && !args.publish.is_empty() {
        let what =
            "--publish has no meaning with --network host: the container has the machine's ports";
        return Err(CliError::Usage(what.to_owned()));
    }
    let context = v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(args.network)),
        seccomp: Some(runtime_default()),
        ..Default::default()
    };
    let metadata = v1::PodSandboxMetadata {
        name: name.to_owned(),
        uid: uid.to_owned(),
        namespace: args.namespace.clone(),
        attempt: 0,
    };
    Ok(v1::PodSandboxConfig {
        labels: pod_labels(&metadata),
        metadata: Some(metadata),
        // A pod with the host's network has its name as well.
        hostname: if args.network == Network::Host {
            String::new()
        } else {
            name.to_owned()
        },
        port_mappings: args.publish.iter().map(port).collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(context),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// What a container runs: an image, and arguments for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program<'a> {
    pub(super) image: &'a str,
    pub(super) command: &'a [String],
}

/// The container.
pub(super) fn container(
    args: &PodArgs,
    program: Program<'_>,
    name: &str,
    pod: &v1::PodSandboxMetadata,
) -> v1::ContainerConfig {
    let mut labels = pod_labels(pod);
    labels.insert("io.kubernetes.container.name".to_owned(), name.to_owned());
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        }),
        image: Some(v1::ImageSpec {
            image: program.image.to_owned(),
            ..Default::default()
        }),
        args: program.command.to_vec(),
        envs: args
            .env
            .iter()
            .map(|e| v1::KeyValue {
                key: e.key.clone(),
                value: e.value.clone().into_bytes(),
            })
            .collect(),
        mounts: args
            .volume
            .iter()
            .map(|v| v1::Mount {
                host_path: v.host.clone(),
                container_path: v.container.clone(),
                readonly: v.readonly,
                ..Default::default()
            })
            .collect(),
        labels,
        log_path: format!("{name}.log"),
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(namespaces(args.network)),
                seccomp: Some(runtime_default()),
                masked_paths: MASKED.map(str::to_owned).to_vec(),
                readonly_paths: READONLY.map(str::to_owned).to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// What kubelet would set, so that other tools show the pod as any other.
fn pod_labels(pod: &v1::PodSandboxMetadata) -> HashMap<String, String> {
    [
        ("name", &pod.name),
        ("namespace", &pod.namespace),
        ("uid", &pod.uid),
    ]
    .map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.clone()))
    .into()
}

fn namespaces(network: Network) -> v1::NamespaceOption {
    let network = match network {
        Network::Pod => v1::NamespaceMode::Pod,
        Network::Host => v1::NamespaceMode::Node,
    };
    v1::NamespaceOption {
        network: network.into(),
        // The default of the message would be one process namespace for the whole pod.
        pid: v1::NamespaceMode::Container.into(),
        ipc: v1::NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

fn runtime_default() -> v1::SecurityProfile {
    v1::SecurityProfile {
        profile_type: v1::security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    }
}

fn port(port: &super::syntax::Port) -> v1::PortMapping {
    v1::PortMapping {
        protocol: port.protocol.into(),
        container_port: port.container.into(),
        host_port: port.host.into(),
        host_ip: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::{Cli, Command, RunArgs};
    use super::*;

    fn args(args: &[&str]) -> RunArgs {
        let all = ["nexcage", "run"].iter().chain(args);
        let Command::Run(args) = Cli::try_parse_from(all).unwrap().command else {
            panic!("not run")
        };
        *args
    }

    #[test]
    fn names_come_from_the_image() {
        let long = "a".repeat(100);
        for (image, expected) in [
            ("docker.io/library/debian:13", "debian-1a2b3c"),
            ("localhost:5000/my_App@sha256:00", "my-app-1a2b3c"),
            ("registry/___", "pod-1a2b3c"),
        ] {
            assert_eq!(name(None, image, "1a2b3c").unwrap(), expected);
        }
        assert_eq!(name(None, &long, "1a2b3c").unwrap().len(), NAME_MAX);
        assert_eq!(name(Some("web"), "x", "1a2b3c").unwrap(), "web");
        for bad in ["", "Web", "a b", "a/b", "-a", "a-", &long] {
            assert!(name(Some(bad), "x", "").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_whole_request() {
        let args = args(&[
            "-e",
            "A=1",
            "-v",
            "/srv:/data:ro",
            "-p",
            "8080:80",
            "-p",
            "53:53/udp",
            "debian",
            "ls",
            "-l",
        ]);
        // Labels are a map without an order.
        let mut pod = sandbox(&args.new, "web", "uid-1").unwrap();
        let program = Program {
            image: &args.image,
            command: &args.command,
        };
        let mut container = container(&args.new, program, "web", pod.metadata.as_ref().unwrap());
        let labels = |labels: &mut HashMap<String, String>| {
            let mut list: Vec<_> = std::mem::take(labels).into_iter().collect();
            list.sort();
            list
        };
        insta::assert_debug_snapshot!((
            labels(&mut pod.labels),
            pod,
            labels(&mut container.labels),
            container
        ));
    }

    #[test]
    fn the_hosts_network_has_no_ports_to_publish() {
        let host = args(&["--network", "host", "-p", "80:80", "debian"]);
        assert!(matches!(
            sandbox(&host.new, "web", "u"),
            Err(CliError::Usage(_))
        ));
        let pod = sandbox(&args(&["--network", "host", "debian"]).new, "web", "u").unwrap();
        let context = pod.linux.unwrap().security_context.unwrap();
        assert_eq!(
            context.namespace_options.unwrap().network(),
            v1::NamespaceMode::Node
        );
        assert_eq!(pod.hostname, "");
    }
}
