mod contents;
mod security;

use std::collections::HashMap;

use super::*;
use crate::containers::config::*;
use crate::cri::invalid::InvalidKind;

fn minimal() -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: "app".into(),
            attempt: 2,
        }),
        image: Some(v1::ImageSpec {
            image: "busybox".into(),
            ..v1::ImageSpec::default()
        }),
        ..v1::ContainerConfig::default()
    }
}

fn with(change: impl FnOnce(&mut v1::ContainerConfig)) -> Checked<ContainerSpec> {
    let mut config = minimal();
    change(&mut config);
    container_spec(config)
}

fn secured(
    change: impl FnOnce(&mut v1::LinuxContainerSecurityContext),
) -> Checked<SecurityContext> {
    let mut context = v1::LinuxContainerSecurityContext::default();
    change(&mut context);
    let linux = v1::LinuxContainerConfig {
        security_context: Some(context),
        resources: None,
    };
    with(|c| c.linux = Some(linux)).map(|spec| spec.security)
}

fn limited(change: impl FnOnce(&mut v1::LinuxContainerResources)) -> Checked<Resources> {
    let mut limits = v1::LinuxContainerResources::default();
    change(&mut limits);
    let linux = v1::LinuxContainerConfig {
        security_context: None,
        resources: Some(limits),
    };
    with(|c| c.linux = Some(linux)).map(|spec| spec.resources)
}

fn mounted(change: impl FnOnce(&mut v1::Mount)) -> Checked<Mount> {
    let mut mount = v1::Mount {
        container_path: "/data".into(),
        host_path: "/host".into(),
        ..v1::Mount::default()
    };
    change(&mut mount);
    with(|c| c.mounts = vec![mount]).map(|spec| spec.mounts[0].clone())
}

/// The field that is refused, and that the problem says enough.
fn field<T: std::fmt::Debug>(result: Checked<T>) -> String {
    let refused = result.unwrap_err();
    assert!(refused.problem.len() > 5, "{refused}");
    refused.field
}

fn image(name: &str) -> v1::ImageSpec {
    v1::ImageSpec {
        image: name.into(),
        ..v1::ImageSpec::default()
    }
}

fn mode(mode: v1::NamespaceMode) -> i32 {
    mode.into()
}

#[test]
fn the_least_there_can_be() {
    let spec = container_spec(minimal()).unwrap();
    let image = ImageSpec {
        image: "busybox".into(),
        ..ImageSpec::default()
    };
    let expected = ContainerSpec {
        name: "app".into(),
        attempt: 2,
        image,
        ..ContainerSpec::default()
    };
    assert_eq!(spec, expected);
    // What a missing message means in CRI.
    assert_eq!(spec.security.namespaces.pid, PidMode::Pod);
    assert_eq!(spec.security.seccomp, SeccompProfile::Unconfined);
    assert_eq!(spec.security.apparmor, AppArmorProfile::Unset);
}

#[test]
fn everything_there_can_be() {
    let spec = with(|c| {
        c.command = vec!["sh".into()];
        c.args = vec!["-c".into(), "true".into()];
        c.working_dir = "/srv//app/.".into();
        c.envs = vec![v1::KeyValue {
            key: "A".into(),
            value: b"1".to_vec(),
        }];
        c.labels = HashMap::from([("l".into(), "1".into())]);
        c.annotations = HashMap::from([("a".into(), "2".into())]);
        c.log_path = "app/2.log".into();
        (c.stdin, c.stdin_once, c.tty) = (true, true, true);
        c.stop_signal = v1::Signal::Sigrtminplus3.into();
        c.devices = vec![v1::Device {
            container_path: "/dev/f".into(),
            host_path: "/dev/fuse".into(),
            permissions: "rwm".into(),
        }];
        c.mounts = vec![
            v1::Mount {
                container_path: "/a//b/./c/".into(),
                host_path: "/host/".into(),
                readonly: true,
                recursive_read_only: true,
                selinux_relabel: true,
                mount_options: vec!["noexec".into(), "nosuid".into()],
                ..v1::Mount::default()
            },
            v1::Mount {
                container_path: "/shared".into(),
                host_path: "/shared".into(),
                propagation: v1::MountPropagation::PropagationBidirectional.into(),
                ..v1::Mount::default()
            },
            v1::Mount {
                container_path: "/img".into(),
                readonly: true,
                image: Some(image("data:1")),
                image_sub_path: "a/./b".into(),
                ..v1::Mount::default()
            },
        ];
        c.linux = Some(v1::LinuxContainerConfig {
            resources: Some(v1::LinuxContainerResources {
                cpu_period: 100_000,
                cpu_quota: -1,
                cpu_shares: 1024,
                memory_limit_in_bytes: 1 << 20,
                memory_swap_limit_in_bytes: 1 << 21,
                oom_score_adj: -998,
                cpuset_cpus: "0-2,7".into(),
                cpuset_mems: "0".into(),
                hugepage_limits: vec![v1::HugepageLimit {
                    page_size: "2MB".into(),
                    limit: 0,
                }],
                unified: HashMap::from([("memory.oom.group".into(), "1".into())]),
            }),
            security_context: Some(v1::LinuxContainerSecurityContext {
                capabilities: Some(v1::Capability {
                    add_capabilities: vec!["NET_ADMIN".into(), "cap_sys_time".into()],
                    drop_capabilities: vec!["ALL".into()],
                    add_ambient_capabilities: vec!["CAP_CHOWN".into()],
                }),
                namespace_options: Some(v1::NamespaceOption {
                    network: mode(v1::NamespaceMode::Node),
                    ipc: mode(v1::NamespaceMode::Node),
                    pid: mode(v1::NamespaceMode::Target),
                    target_id: "abc".into(),
                    userns_options: Some(v1::UserNamespace {
                        mode: mode(v1::NamespaceMode::Node),
                        ..v1::UserNamespace::default()
                    }),
                }),
                selinux_options: Some(v1::SeLinuxOption {
                    level: "s0:c1,c2".into(),
                    ..v1::SeLinuxOption::default()
                }),
                run_as_user: Some(v1::Int64Value { value: 1000 }),
                run_as_group: Some(v1::Int64Value { value: 50 }),
                supplemental_groups: vec![1234],
                supplemental_groups_policy: v1::SupplementalGroupsPolicy::Strict.into(),
                readonly_rootfs: true,
                no_new_privs: true,
                masked_paths: vec!["/proc/kcore".into()],
                readonly_paths: vec!["/proc/sys".into()],
                seccomp: Some(v1::SecurityProfile {
                    profile_type: v1::security_profile::ProfileType::Localhost.into(),
                    localhost_ref: "/var/lib/kubelet/seccomp/p.json".into(),
                }),
                apparmor: Some(v1::SecurityProfile {
                    profile_type: v1::security_profile::ProfileType::Localhost.into(),
                    localhost_ref: "localhost/strict".into(),
                }),
                ..v1::LinuxContainerSecurityContext::default()
            }),
        });
    });
    let spec = spec.unwrap();
    insta::assert_debug_snapshot!(spec);
    // The database keeps it as JSON.
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<ContainerSpec>(&json).unwrap(), spec);
}

#[test]
fn what_must_be_there() {
    assert_eq!(field(with(|c| c.metadata = None)), "config.metadata");
    let nameless = v1::ContainerMetadata::default();
    assert_eq!(
        field(with(|c| c.metadata = Some(nameless))),
        "config.metadata.name"
    );
    assert_eq!(field(with(|c| c.image = None)), "config.image.image");
}

#[test]
fn what_nexcage_does_not_do_is_unsupported() {
    let unsupported = |result: Checked<ContainerSpec>| {
        let refused = result.unwrap_err();
        assert_eq!(refused.kind, InvalidKind::Unsupported, "{refused}");
        refused.field
    };
    let windows = with(|c| c.windows = Some(v1::WindowsContainerConfig::default()));
    assert_eq!(unsupported(windows), "config.windows");
    let cdi = with(|c| {
        c.cdi_devices = vec![v1::CdiDevice {
            name: "v.com/gpu=1".into(),
        }];
    });
    assert_eq!(unsupported(cdi), "config.CDI_devices");
    let not_text = with(|c| {
        c.envs = vec![v1::KeyValue {
            key: "TOKEN".into(),
            value: vec![0xff, b's'],
        }];
    });
    assert!(
        not_text
            .as_ref()
            .unwrap_err()
            .problem
            .contains("the value of TOKEN is not UTF-8")
    );
    assert_eq!(unsupported(not_text), "config.envs[0].value");
    assert_eq!(
        unsupported(with(|c| c.stop_signal = 99)),
        "config.stop_signal"
    );
}

#[test]
fn every_signal_of_cri_is_known_and_comes_back() {
    for number in 1..=65 {
        let cri = v1::Signal::try_from(number).unwrap();
        let spec = with(|c| c.stop_signal = number).unwrap();
        let back = cri_signal(spec.stop_signal.unwrap());
        // Some are other names of one number.
        let alias = match cri {
            v1::Signal::Sigcld => v1::Signal::Sigchld,
            v1::Signal::Sigiot => v1::Signal::Sigabrt,
            v1::Signal::Sigpoll => v1::Signal::Sigio,
            other => other,
        };
        assert_eq!(back, alias);
    }
    assert_eq!(with(|_| {}).unwrap().stop_signal, None);
}
