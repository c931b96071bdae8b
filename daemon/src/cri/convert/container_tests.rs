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
fn user_namespaces() {
    let range = |host_id| {
        vec![v1::IdMapping {
            container_id: 0,
            host_id,
            length: 65536,
        }]
    };
    let pod = |uids, gids| {
        secured(|s| {
            s.namespace_options = Some(v1::NamespaceOption {
                userns_options: Some(v1::UserNamespace {
                    mode: mode(v1::NamespaceMode::Pod),
                    uids,
                    gids,
                }),
                ..Default::default()
            });
        })
        .map(|s| s.namespaces)
    };
    let asked = pod(range(100_000), range(100_000)).unwrap();
    assert_eq!(asked.user.unwrap().root(), 100_000);
    let at = |name: &str| {
        format!("config.linux.security_context.namespace_options.userns_options.{name}")
    };
    assert_eq!(field(pod(Vec::new(), Vec::new())), at("uids"));
    assert_eq!(field(pod(range(1), range(2))), at("gids"));
    assert_eq!(field(pod(range(u32::MAX), range(1))), at("uids"));

    let mapped = |uids, gids| {
        mounted(|m| {
            m.uid_mappings = uids;
            m.gid_mappings = gids;
        })
    };
    let mount = mapped(range(7), range(7)).unwrap();
    assert_eq!(mount.mapping.as_ref().unwrap().root(), 7);
    assert_eq!(
        field(mapped(range(7), Vec::new())),
        "config.mounts[0].gidMappings"
    );
    let two = [range(1), range(2)].concat();
    assert_eq!(field(mapped(two, range(1))), "config.mounts[0].uidMappings");
}

#[test]
fn paths() {
    assert_eq!(
        field(with(|c| c.working_dir = "srv".into())),
        "config.working_dir"
    );
    assert_eq!(
        field(with(|c| c.working_dir = "/a/../b".into())),
        "config.working_dir"
    );
    for bad in ["/var/log/x", "../x", "a/../../x", ".", "a/", "a\0b"] {
        assert_eq!(
            field(with(|c| c.log_path = bad.into())),
            "config.log_path",
            "{bad:?}"
        );
    }
    for bad in ["", "relative", "/", "//", "/./", "/a/../b", "/a\0"] {
        let got = field(mounted(|m| m.container_path = bad.into()));
        assert_eq!(got, "config.mounts[0].container_path", "{bad:?}");
    }
    for bad in ["", "relative", "/a/../b"] {
        let got = field(mounted(|m| m.host_path = bad.into()));
        assert_eq!(got, "config.mounts[0].host_path", "{bad:?}");
    }
    let nul = with(|c| c.command = vec!["a".into(), "\0".into()]);
    assert_eq!(field(nul), "config.command[1]");
    assert_eq!(
        field(with(|c| c.args = vec!["\0".into()])),
        "config.args[0]"
    );
    let masked = secured(|s| s.masked_paths = vec!["proc".into()]);
    assert_eq!(
        field(masked),
        "config.linux.security_context.masked_paths[0]"
    );
}

#[test]
fn environment() {
    let env = |key: &str, value: &[u8]| {
        let variable = v1::KeyValue {
            key: key.into(),
            value: value.to_vec(),
        };
        with(|c| c.envs = vec![variable])
    };
    for bad in ["", "A=B", "\0"] {
        assert_eq!(field(env(bad, b"x")), "config.envs[0].key", "{bad:?}");
    }
    let nul = env("SECRET", b"pass\0word");
    assert!(!nul.as_ref().unwrap_err().to_string().contains("pass"));
    assert_eq!(field(nul), "config.envs[0].value");
}

#[test]
fn mounts() {
    let at = |name: &str| format!("config.mounts[0].{name}");
    let rro = |readonly: bool, propagation: v1::MountPropagation| {
        mounted(|m| {
            m.recursive_read_only = true;
            m.readonly = readonly;
            m.propagation = propagation.into();
        })
    };
    let private = v1::MountPropagation::PropagationPrivate;
    assert!(rro(true, private).is_ok());
    assert_eq!(field(rro(false, private)), at("recursive_read_only"));
    for shared in [
        v1::MountPropagation::PropagationHostToContainer,
        v1::MountPropagation::PropagationBidirectional,
    ] {
        assert_eq!(field(rro(true, shared)), at("recursive_read_only"));
    }
    assert_eq!(field(mounted(|m| m.propagation = 7)), at("propagation"));
    assert_eq!(
        field(mounted(|m| m.mount_options = vec!["dax".into()])),
        at("mount_options")
    );
    assert_eq!(
        field(mounted(|m| m.image_sub_path = "x".into())),
        at("image_sub_path")
    );
    let twice = with(|c| {
        let mount = |path: &str| v1::Mount {
            container_path: path.into(),
            host_path: "/x".into(),
            ..v1::Mount::default()
        };
        c.mounts = vec![mount("/a/b"), mount("/a//b/")];
    });
    assert_eq!(field(twice), "config.mounts[1].container_path");

    let of_image = |change: fn(&mut v1::Mount)| {
        mounted(|m| {
            (m.image, m.readonly) = (Some(image("x")), true);
            m.host_path.clear();
            change(m);
        })
    };
    assert!(of_image(|_| {}).is_ok());
    assert_eq!(field(of_image(|m| m.readonly = false)), at("readonly"));
    assert_eq!(
        field(of_image(|m| m.host_path = "/x".into())),
        at("host_path")
    );
    assert_eq!(field(of_image(|m| m.propagation = 2)), at("propagation"));
    assert_eq!(
        field(of_image(|m| m.image = Some(image("")))),
        at("image.image")
    );
    for bad in ["/a", "../a", "a/../.."] {
        let got = mounted(|m| {
            (m.image, m.readonly) = (Some(image("x")), true);
            m.host_path.clear();
            m.image_sub_path = bad.into();
        });
        assert_eq!(field(got), at("image_sub_path"), "{bad}");
    }
}

#[test]
fn devices() {
    let device = |change: fn(&mut v1::Device)| {
        let mut device = v1::Device {
            container_path: "/dev/a".into(),
            host_path: "/dev/b".into(),
            permissions: "r".into(),
        };
        change(&mut device);
        field(with(|c| c.devices = vec![device]))
    };
    assert_eq!(
        device(|d| d.permissions.clear()),
        "config.devices[0].permissions"
    );
    assert_eq!(
        device(|d| d.permissions = "rx".into()),
        "config.devices[0].permissions"
    );
    assert_eq!(
        device(|d| d.container_path = "a".into()),
        "config.devices[0].container_path"
    );
    assert_eq!(
        device(|d| d.host_path.clear()),
        "config.devices[0].host_path"
    );
}

#[test]
fn limits() {
    let at = |name: &str| format!("config.linux.resources.{name}");
    assert_eq!(limited(|_| {}).unwrap(), Resources::default());
    assert_eq!(field(limited(|l| l.cpu_period = -1)), at("cpu_period"));
    assert_eq!(field(limited(|l| l.cpu_shares = -1)), at("cpu_shares"));
    assert_eq!(field(limited(|l| l.cpu_quota = -2)), at("cpu_quota"));
    assert_eq!(
        field(limited(|l| l.memory_limit_in_bytes = i64::MIN)),
        at("memory_limit_in_bytes")
    );
    for adj in [-1001, 1001, i64::MAX] {
        assert_eq!(
            field(limited(|l| l.oom_score_adj = adj)),
            at("oom_score_adj")
        );
    }
    let swap = |memory, swap| {
        limited(|l| {
            l.memory_limit_in_bytes = memory;
            l.memory_swap_limit_in_bytes = swap;
        })
    };
    assert!(swap(10, 10).is_ok() && swap(10, -1).is_ok() && swap(0, 10).is_ok());
    assert_eq!(field(swap(10, 9)), at("memory_swap_limit_in_bytes"));
    assert_eq!(field(swap(-1, 9)), at("memory_swap_limit_in_bytes"));
    assert_eq!(
        field(limited(|l| l.cpuset_cpus = "all".into())),
        at("cpuset_cpus")
    );
    assert_eq!(
        field(limited(|l| l.cpuset_mems = "0\n".into())),
        at("cpuset_mems")
    );
    for bad in ["", "memory", "../memory.max", "memory.max/x", ".x"] {
        let unified = HashMap::from([(bad.to_owned(), "1".to_owned())]);
        assert_eq!(
            field(limited(|l| l.unified = unified)),
            at("unified"),
            "{bad:?}"
        );
    }
    for bad in ["", "2", "MB", "2mb", "2MiB", "é"] {
        let limit = v1::HugepageLimit {
            page_size: bad.into(),
            limit: 1,
        };
        let got = field(limited(|l| l.hugepage_limits = vec![limit]));
        assert_eq!(got, at("hugepage_limits[0].page_size"), "{bad:?}");
    }
}

#[test]
fn users() {
    let at = |name: &str| format!("config.linux.security_context.{name}");
    let number = |value| Some(v1::Int64Value { value });
    assert_eq!(
        field(secured(|s| s.run_as_group = number(5))),
        at("run_as_group")
    );
    let by_name = secured(|s| {
        s.run_as_username = "nobody".into();
        s.run_as_group = number(5);
    });
    let expected = RunAs {
        user: RunAsUser::Name("nobody".into()),
        group: Some(5),
    };
    assert_eq!(by_name.unwrap().run_as, Some(expected));
    let both = secured(|s| {
        s.run_as_username = "nobody".into();
        s.run_as_user = number(5);
    });
    assert_eq!(field(both), at("run_as_username"));
    for bad in [-1, i64::from(u32::MAX), i64::MAX] {
        assert_eq!(
            field(secured(|s| s.run_as_user = number(bad))),
            at("run_as_user")
        );
        let groups = secured(|s| s.supplemental_groups = vec![0, bad]);
        assert_eq!(field(groups), at("supplemental_groups[1]"));
    }
    let policy = secured(|s| s.supplemental_groups_policy = 9);
    assert_eq!(field(policy), at("supplemental_groups_policy"));
}

#[test]
fn capabilities() {
    let changes = |add: &[&str], ambient: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        secured(|s| {
            s.capabilities = Some(v1::Capability {
                add_capabilities: list(add),
                add_ambient_capabilities: list(ambient),
                drop_capabilities: Vec::new(),
            });
        })
    };
    let all = changes(&["all", "CHOWN"], &[]).unwrap().capabilities;
    assert!(all.add_all && all.add.len() == 1, "{all:?}");
    let at = "config.linux.security_context.capabilities";
    assert_eq!(
        field(changes(&["NET_ADMINN"], &[])),
        format!("{at}.add_capabilities")
    );
    assert_eq!(
        field(changes(&[], &["ALL"])),
        format!("{at}.add_ambient_capabilities")
    );
}

#[test]
fn namespaces() {
    let options = |change: fn(&mut v1::NamespaceOption)| {
        let mut options = v1::NamespaceOption::default();
        change(&mut options);
        secured(|s| s.namespace_options = Some(options)).map(|s| s.namespaces)
    };
    let at = |name: &str| format!("config.linux.security_context.namespace_options.{name}");
    assert_eq!(options(|o| o.pid = 1).unwrap().pid, PidMode::Container);
    assert_eq!(options(|o| o.pid = 2).unwrap().pid, PidMode::Node);
    assert_eq!(field(options(|o| o.pid = 3)), at("target_id"));
    assert_eq!(
        field(options(|o| o.target_id = "x".into())),
        at("target_id")
    );
    assert_eq!(field(options(|o| o.pid = 4)), at("pid"));
    assert_eq!(field(options(|o| o.network = 1)), at("network"));
    assert_eq!(field(options(|o| o.ipc = 3)), at("ipc"));
    let mapped_node = options(|o| {
        o.userns_options = Some(v1::UserNamespace {
            mode: mode(v1::NamespaceMode::Node),
            uids: vec![v1::IdMapping::default()],
            gids: Vec::new(),
        });
    });
    assert_eq!(field(mapped_node), at("userns_options.uids"));
    let of_target = options(|o| {
        let mode = mode(v1::NamespaceMode::Target);
        o.userns_options = Some(v1::UserNamespace {
            mode,
            ..v1::UserNamespace::default()
        });
    });
    assert_eq!(field(of_target), at("userns_options.mode"));
}

#[test]
#[allow(deprecated, reason = "the old fields are what is tested")]
fn profiles_old_and_new() {
    let message = |profile_type, localhost_ref: &str| {
        Some(v1::SecurityProfile {
            profile_type,
            localhost_ref: localhost_ref.into(),
        })
    };
    let seccomp = |text: &str| secured(|s| s.seccomp_profile_path = text.into()).map(|s| s.seccomp);
    assert_eq!(
        seccomp("runtime/default").unwrap(),
        SeccompProfile::RuntimeDefault
    );
    assert_eq!(seccomp("unconfined").unwrap(), SeccompProfile::Unconfined);
    for path in ["localhost/a/b.json", "localhost//a/b.json"] {
        assert_eq!(
            seccomp(path).unwrap(),
            SeccompProfile::Localhost("/a/b.json".into())
        );
    }
    let at = "config.linux.security_context";
    assert_eq!(
        field(seccomp("a.json")),
        format!("{at}.seccomp_profile_path")
    );

    let apparmor = |text: &str| secured(|s| s.apparmor_profile = text.into()).map(|s| s.apparmor);
    assert_eq!(
        apparmor("runtime/default").unwrap(),
        AppArmorProfile::RuntimeDefault
    );
    assert_eq!(apparmor("unconfined").unwrap(), AppArmorProfile::Unconfined);
    assert_eq!(
        apparmor("localhost/x").unwrap(),
        AppArmorProfile::Localhost("x".into())
    );
    assert_eq!(
        field(apparmor("localhost/")),
        format!("{at}.apparmor_profile")
    );
    assert_eq!(field(apparmor("x")), format!("{at}.apparmor_profile"));

    // The message comes before the old field; an empty one is the default, a missing one is not.
    let both = secured(|s| {
        s.seccomp = message(0, "");
        s.seccomp_profile_path = "unconfined".into();
        s.apparmor = message(2, "new");
        s.apparmor_profile = "localhost/old".into();
    });
    let both = both.unwrap();
    assert_eq!(both.seccomp, SeccompProfile::RuntimeDefault);
    assert_eq!(both.apparmor, AppArmorProfile::Localhost("new".into()));

    let reference = format!("{at}.seccomp.localhost_ref");
    for (kind, path) in [(2, ""), (0, "/a"), (1, "/a"), (2, "a.json"), (2, "/a/../b")] {
        assert_eq!(
            field(secured(|s| s.seccomp = message(kind, path))),
            reference,
            "{path}"
        );
    }
    let unknown = secured(|s| s.apparmor = message(3, ""));
    assert_eq!(field(unknown), format!("{at}.apparmor.profile_type"));
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
