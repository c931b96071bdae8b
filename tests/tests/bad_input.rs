//! Requests that make no sense. Each one is refused with the right code and a message that names what is
//! wrong, and leaves nothing behind.

use anyhow::{Context as _, ensure};
use nexcage_cri_api::v1::*;
use nexcage_tests::client::Client;
use nexcage_tests::leak::Baseline;
use nexcage_tests::{Machine, image, spec, tools};
use tonic::{Code, Response, Status};

/// Collects what was answered in a wrong way, so that one run shows all of it.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    /// Expects one of `codes`, and a message that has `word` in it.
    fn refused<T>(
        &mut self,
        what: &str,
        answer: Result<Response<T>, Status>,
        codes: &[Code],
        word: &str,
    ) {
        match answer {
            Ok(_) => self.0.push(format!("{what}: accepted")),
            Err(status) if !codes.contains(&status.code()) => {
                let (code, message) = (status.code(), status.message());
                self.0
                    .push(format!("{what}: {code:?} instead of {codes:?}: {message}"));
            }
            Err(status) if !status.message().contains(word) => {
                self.0.push(format!(
                    "{what}: does not name `{word}`: {}",
                    status.message()
                ));
            }
            Err(_) => {}
        }
    }

    fn invalid<T>(&mut self, what: &str, answer: Result<Response<T>, Status>, word: &str) {
        self.refused(what, answer, &[Code::InvalidArgument], word);
    }

    /// For fields that cannot be honoured on every machine or in every version.
    fn unsupported<T>(&mut self, what: &str, answer: Result<Response<T>, Status>, word: &str) {
        let codes = [
            Code::InvalidArgument,
            Code::Unimplemented,
            Code::FailedPrecondition,
        ];
        self.refused(what, answer, &codes, word);
    }

    fn accepted<T>(&mut self, what: &str, answer: Result<Response<T>, Status>) {
        if let Err(status) = answer {
            self.0
                .push(format!("{what}: {:?}: {}", status.code(), status.message()));
        }
    }

    fn none(self) -> anyhow::Result<()> {
        ensure!(
            self.0.is_empty(),
            "{} wrong answers:\n  {}",
            self.0.len(),
            self.0.join("\n  ")
        );
        Ok(())
    }
}

/// Runs a test with a daemon and a raw client on a runtime of its own.
fn with_client(test: impl AsyncFnOnce(&Machine, Client) -> anyhow::Result<()>) {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async { test(machine, Client::connect(machine).await?).await })?;
        machine.crictl().remove_everything()?;
        baseline.check(machine)?;
        daemon.terminate()
    });
}

fn pod(name: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "nxt".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        linux: Some(LinuxPodSandboxConfig::default()),
        ..PodSandboxConfig::default()
    }
}

fn container(name: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: image::BUSYBOX.to_owned(),
            ..ImageSpec::default()
        }),
        command: vec!["sleep".to_owned(), "1000".to_owned()],
        linux: Some(LinuxContainerConfig::default()),
        ..ContainerConfig::default()
    }
}

/// A change that spoils a request, and the word that the answer has to name.
type Spoiled<T> = (&'static str, fn(&mut T), &'static str);

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

const CONTAINERS: [Spoiled<ContainerConfig>; 13] = [
    ("no metadata", |c| c.metadata = None, "metadata"),
    (
        "no name",
        |c| c.metadata.get_or_insert_default().name.clear(),
        "name",
    ),
    ("no image", |c| c.image = None, "image"),
    (
        "empty image",
        |c| c.image = Some(ImageSpec::default()),
        "image",
    ),
    (
        "log upwards",
        |c| c.log_path = "../../../etc/cron.d/evil".into(),
        "log_path",
    ),
    (
        "relative working directory",
        |c| c.working_dir = "here".into(),
        "working_dir",
    ),
    ("variable without a name", |c| env(c, "", b"x"), "envs"),
    (
        "variable with = in its name",
        |c| env(c, "A=B", b"x"),
        "envs",
    ),
    ("variable with a NUL", |c| env(c, "A", b"a\0b"), "envs"),
    (
        "mount without a place",
        |c| mount(c).container_path.clear(),
        "container_path",
    ),
    (
        "mount without a source",
        |c| mount(c).host_path.clear(),
        "host_path",
    ),
    (
        "mount from a relative path",
        |c| mount(c).host_path = "tmp".into(),
        "host_path",
    ),
    (
        "recursive read-only of a writable mount",
        |c| mount(c).recursive_read_only = true,
        "recursive_read_only",
    ),
];

const SECURITY: [Spoiled<LinuxContainerSecurityContext>; 6] = [
    (
        "group without a user",
        |s| s.run_as_group = Some(Int64Value { value: 5 }),
        "run_as_group",
    ),
    (
        "user below 0",
        |s| s.run_as_user = Some(Int64Value { value: -1 }),
        "run_as_user",
    ),
    (
        "user of another image",
        |s| s.run_as_username = "no-such-user".into(),
        "no-such-user",
    ),
    (
        "unknown capability",
        |s| {
            s.capabilities = Some(Capability {
                add_capabilities: vec!["CAP_NO_SUCH".to_owned()],
                ..Capability::default()
            });
        },
        "CAP_NO_SUCH",
    ),
    (
        "seccomp profile without a name",
        |s| s.seccomp = Some(localhost("")),
        "seccomp",
    ),
    (
        "seccomp profile that is not there",
        |s| s.seccomp = Some(localhost("/no/such/file")),
        "seccomp",
    ),
];

fn env(config: &mut ContainerConfig, key: &str, value: &[u8]) {
    config.envs = vec![KeyValue {
        key: key.to_owned(),
        value: value.to_vec(),
    }];
}

fn mount(config: &mut ContainerConfig) -> &mut Mount {
    config.mounts = vec![Mount {
        container_path: "/mnt".to_owned(),
        host_path: "/tmp".to_owned(),
        ..Mount::default()
    }];
    &mut config.mounts[0]
}

fn localhost(path: &str) -> SecurityProfile {
    SecurityProfile {
        profile_type: security_profile::ProfileType::Localhost.into(),
        localhost_ref: path.to_owned(),
    }
}

#[test]
fn containers() {
    with_client(async |machine, mut client| {
        machine.pull_busybox()?;
        let mut findings = Findings::default();
        let mut sandbox = pod("good");
        sandbox.log_directory = machine.log_directory("good")?.into_string();
        let run = RunPodSandboxRequest {
            config: Some(sandbox.clone()),
            ..Default::default()
        };
        let pod_sandbox_id = client
            .runtime
            .run_pod_sandbox(run)
            .await?
            .into_inner()
            .pod_sandbox_id;
        let create = |config| CreateContainerRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
            config,
            sandbox_config: Some(sandbox.clone()),
        };

        let answer = client.runtime.create_container(create(None)).await;
        findings.invalid("no config", answer, "config");
        let mut request = create(Some(container("bad")));
        request.pod_sandbox_id.clear();
        let answer = client.runtime.create_container(request).await;
        findings.invalid("no pod", answer, "pod_sandbox_id");
        let mut request = create(Some(container("bad")));
        request.pod_sandbox_id = "f".repeat(64);
        let answer = client.runtime.create_container(request).await;
        findings.refused("unknown pod", answer, &[Code::NotFound], "ffff");
        let mut config = container("bad");
        config.image.get_or_insert_default().image = "registry.k8s.io/never/pulled:1".to_owned();
        let answer = client.runtime.create_container(create(Some(config))).await;
        findings.refused(
            "image that is not there",
            answer,
            &[Code::NotFound],
            "never/pulled",
        );

        for (index, (what, spoil, word)) in CONTAINERS.into_iter().enumerate() {
            let mut config = container(&format!("bad{index}"));
            spoil(&mut config);
            let answer = client.runtime.create_container(create(Some(config))).await;
            findings.invalid(what, answer, word);
        }
        for (index, (what, spoil, word)) in SECURITY.into_iter().enumerate() {
            let mut config = container(&format!("security{index}"));
            let linux = config.linux.get_or_insert_default();
            spoil(linux.security_context.get_or_insert_default());
            let answer = client.runtime.create_container(create(Some(config))).await;
            findings.invalid(what, answer, word);
        }
        let unsupported: [Spoiled<ContainerConfig>; 5] = [
            (
                "mount with an unknown propagation",
                |c| mount(c).propagation = 99,
                "propagation",
            ),
            ("unknown signal", |c| c.stop_signal = 9999, "stop_signal"),
            (
                "a Windows container",
                |c| c.windows = Some(WindowsContainerConfig::default()),
                "windows",
            ),
            (
                "a CDI device that nobody has",
                |c| {
                    c.cdi_devices = vec![CdiDevice {
                        name: "vendor.com/class=none".to_owned(),
                    }];
                },
                "CDI_devices",
            ),
            (
                "a device that is not there",
                |c| {
                    c.devices = vec![Device {
                        host_path: "/dev/no-such-device".to_owned(),
                        container_path: "/dev/x".to_owned(),
                        permissions: "rwm".to_owned(),
                    }];
                },
                "/dev/no-such-device",
            ),
        ];
        for (index, (what, spoil, word)) in unsupported.into_iter().enumerate() {
            let mut config = container(&format!("unsupported{index}"));
            spoil(&mut config);
            let answer = client.runtime.create_container(create(Some(config))).await;
            findings.unsupported(what, answer, word);
        }

        let list = ListContainersRequest::default();
        let left = client
            .runtime
            .list_containers(list)
            .await?
            .into_inner()
            .containers;
        ensure!(left.is_empty(), "a refused container is listed: {left:?}");
        findings.none()
    });
}

/// A mount whose target goes upwards stays inside of the container, wherever that puts it.
#[test]
fn a_mount_cannot_leave_the_container() {
    with_client(async |machine, mut client| {
        machine.pull_busybox()?;
        let sandbox = pod("upwards");
        let run = RunPodSandboxRequest {
            config: Some(sandbox.clone()),
            ..Default::default()
        };
        let pod_sandbox_id = client
            .runtime
            .run_pod_sandbox(run)
            .await?
            .into_inner()
            .pod_sandbox_id;
        let outside = machine.temporary_directory().join("outside");
        let mut config = container("upwards");
        mount(&mut config).container_path = format!("/../../../../../../../..{outside}");
        let create = CreateContainerRequest {
            pod_sandbox_id,
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        match client.runtime.create_container(create).await {
            Ok(answer) => {
                let container_id = answer.into_inner().container_id;
                client
                    .runtime
                    .start_container(StartContainerRequest { container_id })
                    .await?;
            }
            Err(status) => {
                ensure!(status.code() == Code::InvalidArgument, "{status:?}");
                ensure!(status.message().contains("container_path"), "{status:?}");
            }
        }
        ensure!(
            !outside.exists(),
            "the mount point was made on the host: {outside}"
        );
        Ok(())
    });
}

#[test]
fn ids_that_nobody_has() {
    with_client(async |_, mut client| {
        let mut findings = Findings::default();
        let nobody = "e".repeat(64);
        for (id, codes, word) in [
            (nobody.as_str(), [Code::NotFound].as_slice(), "eeee"),
            ("", &[Code::InvalidArgument], "_id"),
            (
                "../../etc/passwd",
                &[Code::NotFound, Code::InvalidArgument],
                "",
            ),
        ] {
            let pod = || id.to_owned();
            let ctr = || id.to_owned();
            let runtime = &mut client.runtime;
            let ask = PodSandboxStatusRequest {
                pod_sandbox_id: pod(),
                verbose: true,
            };
            findings.refused(
                "PodSandboxStatus",
                runtime.pod_sandbox_status(ask).await,
                codes,
                word,
            );
            let ask = PodSandboxStatsRequest {
                pod_sandbox_id: pod(),
            };
            findings.refused(
                "PodSandboxStats",
                runtime.pod_sandbox_stats(ask).await,
                codes,
                word,
            );
            let ask = StartContainerRequest {
                container_id: ctr(),
            };
            findings.refused(
                "StartContainer",
                runtime.start_container(ask).await,
                codes,
                word,
            );
            let ask = ContainerStatusRequest {
                container_id: ctr(),
                verbose: true,
            };
            findings.refused(
                "ContainerStatus",
                runtime.container_status(ask).await,
                codes,
                word,
            );
            let ask = ContainerStatsRequest {
                container_id: ctr(),
            };
            findings.refused(
                "ContainerStats",
                runtime.container_stats(ask).await,
                codes,
                word,
            );
            let ask = ReopenContainerLogRequest {
                container_id: ctr(),
            };
            findings.refused(
                "ReopenContainerLog",
                runtime.reopen_container_log(ask).await,
                codes,
                word,
            );
            let ask = UpdateContainerResourcesRequest {
                container_id: ctr(),
                linux: Some(LinuxContainerResources::default()),
                ..Default::default()
            };
            let answer = runtime.update_container_resources(ask).await;
            findings.refused("UpdateContainerResources", answer, codes, word);
            let ask = ExecSyncRequest {
                container_id: ctr(),
                cmd: vec!["true".into()],
                timeout: 1,
            };
            findings.refused("ExecSync", runtime.exec_sync(ask).await, codes, word);
        }

        // What is not there is stopped and removed already.
        let runtime = &mut client.runtime;
        let ask = StopContainerRequest {
            container_id: nobody.clone(),
            timeout: 1,
        };
        findings.accepted("StopContainer", runtime.stop_container(ask).await);
        let ask = RemoveContainerRequest {
            container_id: nobody.clone(),
        };
        findings.accepted("RemoveContainer", runtime.remove_container(ask).await);
        let ask = StopPodSandboxRequest {
            pod_sandbox_id: nobody.clone(),
        };
        findings.accepted("StopPodSandbox", runtime.stop_pod_sandbox(ask).await);
        let ask = RemovePodSandboxRequest {
            pod_sandbox_id: nobody.clone(),
        };
        findings.accepted("RemovePodSandbox", runtime.remove_pod_sandbox(ask).await);
        findings.none()
    });
}

#[test]
fn commands_in_a_container() {
    with_client(async |machine, mut client| {
        machine.pull_busybox()?;
        let mut findings = Findings::default();
        let pod = machine.run_pod("execs")?;
        let container_id = machine.start(&pod, &spec::shell("counter", spec::COUNT))?;
        let exec = |cmd: &[&str], timeout| ExecSyncRequest {
            container_id: container_id.clone(),
            cmd: cmd.iter().map(|&word| word.to_owned()).collect(),
            timeout,
        };
        findings.invalid(
            "no command",
            client.runtime.exec_sync(exec(&[], 1)).await,
            "cmd",
        );
        let answer = client.runtime.exec_sync(exec(&["true"], -1)).await;
        findings.invalid("a timeout below 0", answer, "timeout");
        let answer = client.runtime.exec_sync(exec(&["sleep", "100"], 1)).await;
        findings.refused("a timeout", answer, &[Code::DeadlineExceeded], "");

        // More output than is kept, without a limit the daemon would run out of memory.
        let flood = ["sh", "-c", "head -c 40000000 /dev/zero"];
        let mut large = client.runtime.clone().max_decoding_message_size(64 << 20);
        let answer = large.exec_sync(exec(&flood, 60)).await?.into_inner();
        ensure!(
            answer.stdout.len() <= 16 << 20,
            "{} bytes of output",
            answer.stdout.len()
        );
        findings.none()
    });
}

#[test]
fn images() {
    with_client(async |_, mut client| {
        let mut findings = Findings::default();
        let named = |name: &str| {
            Some(ImageSpec {
                image: name.to_owned(),
                ..ImageSpec::default()
            })
        };
        let pull = |image| PullImageRequest {
            image,
            ..Default::default()
        };
        let registry = tools::registry()?;
        let invalid = [
            ("", "image"),
            ("Upper/Case:1", "Upper/Case"),
            ("registry.k8s.io/a b", "a b"),
            ("registry.k8s.io/pause@sha256:12", "sha256:12"),
            ("registry.k8s.io/../../etc/passwd:1", ".."),
        ];
        findings.invalid(
            "no image",
            client.images.pull_image(pull(None)).await,
            "image",
        );
        for (name, word) in invalid {
            let answer = client.images.pull_image(pull(named(name))).await;
            findings.invalid(&format!("pull {name:?}"), answer, word);
        }
        let answer = client
            .images
            .pull_image(pull(named(&format!("{registry}/no/such:image"))))
            .await;
        findings.refused("an image nobody has", answer, &[Code::NotFound], "no/such");
        let digest = format!("{registry}/pause@sha256:{}", "0".repeat(64));
        let answer = client.images.pull_image(pull(named(&digest))).await;
        findings.refused(
            "a digest nobody has",
            answer,
            &[Code::NotFound],
            "sha256:0000",
        );

        let ask = |image| ImageStatusRequest {
            image,
            verbose: false,
        };
        findings.invalid(
            "status of nothing",
            client.images.image_status(ask(None)).await,
            "image",
        );
        let answer = client
            .images
            .image_status(ask(named("registry.k8s.io/no/such:image")))
            .await;
        match answer {
            Ok(answer) if answer.get_ref().image.is_some() => {
                findings
                    .0
                    .push("the status of an image that is not there has an image".to_owned());
            }
            answer => findings.accepted("the status of an image that is not there", answer),
        }
        let remove = RemoveImageRequest {
            image: named("registry.k8s.io/no/such:image"),
        };
        findings.accepted(
            "removal of an image that is not there",
            client.images.remove_image(remove).await,
        );
        let remove = RemoveImageRequest { image: None };
        findings.invalid(
            "removal of nothing",
            client.images.remove_image(remove).await,
            "image",
        );
        let list = ListImagesRequest::default();
        let images = client.images.list_images(list).await?.into_inner().images;
        ensure!(images.is_empty(), "a failed pull is listed: {images:?}");
        findings.none()
    });
}
