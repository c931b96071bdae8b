//! CreateContainer.

use anyhow::ensure;
use nexcage_cri_api::v1::*;
use nexcage_tests::request::{container, pod};
use tonic::Code;

use crate::asking::{Findings, Spoiled, with_client};

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
