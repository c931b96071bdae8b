//! RunPodSandbox.

use anyhow::{Context as _, ensure};
use nexcage_cri_api::v1::*;
use nexcage_tests::request::pod;
use tonic::Code;

use crate::asking::{Findings, Spoiled, with_client};

const PODS: [Spoiled<PodSandboxConfig>; 14] = [
    ("no metadata", |c| c.metadata = None, "metadata"),
    ("no name", |c| metadata(c).name.clear(), "name"),
    ("no uid", |c| metadata(c).uid.clear(), "uid"),
    (
        "no namespace",
        |c| metadata(c).namespace.clear(),
        "namespace",
    ),
    (
        "name with a NUL",
        |c| metadata(c).name = "a\0b".into(),
        "name",
    ),
    (
        "hostname with a space",
        |c| c.hostname = "not a name".into(),
        "hostname",
    ),
    (
        "hostname of 64 bytes",
        |c| c.hostname = "a".repeat(64),
        "hostname",
    ),
    (
        "relative log directory",
        |c| c.log_directory = "logs/here".into(),
        "log_directory",
    ),
    (
        "log directory upwards",
        |c| c.log_directory = "/var/log/../../etc".into(),
        "log_directory",
    ),
    (
        "line feed in a name server",
        |c| dns(c).servers = vec!["1.1.1.1\nevil".into()],
        "servers",
    ),
    (
        "line feed in a search domain",
        |c| dns(c).searches = vec!["a\nb".into()],
        "searches",
    ),
    (
        "container port 70000",
        |c| port(c).container_port = 70_000,
        "container_port",
    ),
    ("host port below 0", |c| port(c).host_port = -1, "host_port"),
    (
        "host address that is none",
        |c| port(c).host_ip = "nowhere".into(),
        "host_ip",
    ),
];

fn metadata(config: &mut PodSandboxConfig) -> &mut PodSandboxMetadata {
    config.metadata.get_or_insert_default()
}

fn dns(config: &mut PodSandboxConfig) -> &mut DnsConfig {
    config.dns_config.get_or_insert_default()
}

fn port(config: &mut PodSandboxConfig) -> &mut PortMapping {
    config.port_mappings = vec![PortMapping {
        container_port: 80,
        ..PortMapping::default()
    }];
    &mut config.port_mappings[0]
}

fn sysctl(config: &mut PodSandboxConfig, key: &str, value: &str) {
    let linux = config.linux.get_or_insert_default();
    linux.sysctls.insert(key.to_owned(), value.to_owned());
}

fn namespaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    let linux = config.linux.get_or_insert_default();
    let security = linux.security_context.get_or_insert_default();
    security.namespace_options.get_or_insert_default()
}

#[test]
fn pods() {
    with_client(async |_, mut client| {
        let mut findings = Findings::default();
        let run = RunPodSandboxRequest::default();
        findings.invalid(
            "no config",
            client.runtime.run_pod_sandbox(run).await,
            "config",
        );
        for (index, (what, spoil, word)) in PODS.into_iter().enumerate() {
            // A name of its own: the same name again would be a retry.
            let mut config = pod(&format!("bad{index}"));
            spoil(&mut config);
            let run = RunPodSandboxRequest {
                config: Some(config),
                ..Default::default()
            };
            findings.invalid(what, client.runtime.run_pod_sandbox(run).await, word);
        }
        let unsupported: [Spoiled<PodSandboxConfig>; 6] = [
            (
                "sysctl upwards",
                |c| sysctl(c, "../../kernel/panic", "1"),
                "sysctls",
            ),
            (
                "sysctl of the whole host",
                |c| sysctl(c, "vm.overcommit_memory", "1"),
                "sysctls",
            ),
            (
                "unknown namespace mode",
                |c| namespaces(c).network = 99,
                "network",
            ),
            (
                "another container's pid namespace",
                |c| namespaces(c).pid = NamespaceMode::Target.into(),
                "pid",
            ),
            (
                "a Windows pod",
                |c| c.windows = Some(WindowsPodSandboxConfig::default()),
                "windows",
            ),
            (
                "user namespace without mappings",
                |c| {
                    namespaces(c).userns_options = Some(UserNamespace {
                        mode: NamespaceMode::Pod.into(),
                        ..Default::default()
                    });
                },
                "userns_options",
            ),
        ];
        for (index, (what, spoil, word)) in unsupported.into_iter().enumerate() {
            let mut config = pod(&format!("unsupported{index}"));
            spoil(&mut config);
            let run = RunPodSandboxRequest {
                config: Some(config),
                ..Default::default()
            };
            findings.unsupported(what, client.runtime.run_pod_sandbox(run).await, word);
        }
        let run = RunPodSandboxRequest {
            config: Some(pod("handler")),
            runtime_handler: "no-such-handler".to_owned(),
        };
        let answer = client.runtime.run_pod_sandbox(run).await;
        findings.refused(
            "unknown runtime handler",
            answer,
            &[Code::InvalidArgument, Code::NotFound],
            "no-such-handler",
        );
        findings.none()
    });
}

/// CRI sets no limit on labels: one of a MiB comes back as it is, or is refused by its name.
#[test]
fn a_label_of_a_mebibyte() {
    with_client(async |_, mut client| {
        let mut config = pod("label");
        let value = "x".repeat(1 << 20);
        config.labels.insert("large".to_owned(), value.clone());
        let run = RunPodSandboxRequest {
            config: Some(config),
            ..Default::default()
        };
        match client.runtime.run_pod_sandbox(run).await {
            Ok(answer) => {
                let pod_sandbox_id = answer.into_inner().pod_sandbox_id;
                let ask = PodSandboxStatusRequest {
                    pod_sandbox_id,
                    verbose: false,
                };
                let status = client
                    .runtime
                    .pod_sandbox_status(ask)
                    .await?
                    .into_inner()
                    .status;
                let status = status.context("no status")?;
                ensure!(
                    status.labels.get("large") == Some(&value),
                    "the label has changed"
                );
            }
            Err(status) => {
                let code = matches!(
                    status.code(),
                    Code::InvalidArgument | Code::ResourceExhausted
                );
                ensure!(code && status.message().contains("labels"), "{status:?}");
                ensure!(
                    status.message().len() < 4096,
                    "the answer repeats the label"
                );
            }
        }
        Ok(())
    });
}
