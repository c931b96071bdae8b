//! Golden files. `plain` is a whole configuration; the others show what differs from it.

use std::collections::BTreeSet;

use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image;
use oci_spec::runtime::{Arch, Capability, PosixRlimitBuilder, PosixRlimitType, Spec};
use serde_json::Value;

use super::*;
use crate::containers::config::*;
use crate::containers::seccomp::{Profile, Target};
use crate::containers::signal::Signal;
use crate::containers::users::ResolvedUser;

/// Owns what a [`SpecInput`] borrows.
pub(super) struct Fixture {
    pub(super) config: ContainerSpec,
    pub(super) image: Option<image::Config>,
    pub(super) user: ResolvedUser,
    pub(super) sandbox: SandboxFacts,
    pub(super) node: NodeFacts,
    pub(super) rootfs: Utf8PathBuf,
    pub(super) cgroup: Option<Utf8PathBuf>,
    pub(super) mount_sources: Vec<Utf8PathBuf>,
    pub(super) image_volumes: Vec<ImageVolumeMount>,
    pub(super) devices: Vec<HostDevice>,
    pub(super) target_pid: Option<Utf8PathBuf>,
    pub(super) localhost_seccomp: Option<Profile>,
}

impl Fixture {
    pub(super) fn build(&self) -> Result<Spec, SpecError> {
        build(&SpecInput {
            config: &self.config,
            image: self.image.as_ref(),
            user: &self.user,
            sandbox: &self.sandbox,
            node: &self.node,
            rootfs: &self.rootfs,
            cgroup: self.cgroup.as_deref(),
            mount_sources: &self.mount_sources,
            image_volumes: &self.image_volumes,
            devices: &self.devices,
            target_pid: self.target_pid.as_deref(),
            localhost_seccomp: self.localhost_seccomp.as_ref(),
        })
    }

    fn refused(&self) -> String {
        self.build().unwrap_err().to_string()
    }

    /// Adds a bind mount of a host path, already looked up.
    pub(super) fn mount(&mut self, source: &str, path: &str, change: impl FnOnce(&mut Mount)) {
        let mut mount = Mount {
            container_path: path.into(),
            source: MountSource::HostPath(source.into()),
            readonly: false,
            recursive_read_only: false,
            propagation: Propagation::Private,
            selinux_relabel: false,
            mapping: None,
            options: Vec::new(),
        };
        change(&mut mount);
        self.config.mounts.push(mount);
        self.mount_sources.push(source.into());
    }
}

fn image_config(json: &str) -> image::Config {
    serde_json::from_str(json).unwrap()
}

pub(super) fn node() -> NodeFacts {
    NodeFacts {
        default_capabilities: DEFAULT_CAPABILITIES.to_vec(),
        available_capabilities: capabilities_from_mask(u64::MAX),
        no_new_privileges: false,
        read_only_rootfs: false,
        default_seccomp: Some(seccomp_profile("mount")),
        seccomp_target: Target {
            arch: Arch::ScmpArchX86_64,
            kernel: (6, 12),
        },
        apparmor: None,
        swap_accounting: true,
        hugetlb: true,
        rlimits: Vec::new(),
    }
}

/// Refuses one system call to those without CAP_SYS_ADMIN.
pub(super) fn seccomp_profile(call: &str) -> Profile {
    let json = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{
            "names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        }],
    });
    Profile::parse(json.to_string().as_bytes()).unwrap()
}

/// A container as kubelet asks for it.
fn plain() -> Fixture {
    let namespace = |name: &str| Some(Utf8PathBuf::from(format!("/proc/4711/ns/{name}")));
    Fixture {
        config: ContainerSpec {
            name: "app".into(),
            envs: vec![EnvVar {
                name: "COLOUR".into(),
                value: "blue".into(),
            }],
            security: SecurityContext {
                namespaces: Namespaces {
                    pid: PidMode::Container,
                    ..Namespaces::default()
                },
                masked_paths: vec!["/proc/kcore".into()],
                readonly_paths: vec!["/proc/sys".into()],
                ..SecurityContext::default()
            },
            ..ContainerSpec::default()
        },
        image: Some(image_config(
            r#"{"Entrypoint": ["/entry"], "Cmd": ["serve", "--all"], "WorkingDir": "/srv",
                "Env": ["PATH=/opt/bin:/bin", "COLOUR=red", "LANG=C.UTF-8"]}"#,
        )),
        user: ResolvedUser {
            uid: 0,
            gid: 0,
            additional_gids: vec![0, 10],
            home: "/root".into(),
        },
        sandbox: SandboxFacts {
            hostname: "pod-1".into(),
            privileged: true,
            network: namespace("net"),
            ipc: namespace("ipc"),
            user: None,
            uts: namespace("uts"),
            pid: namespace("pid"),
            shm: "/run/nexcage/p/shm".into(),
            resolv_conf: Some("/run/nexcage/p/resolv.conf".into()),
            hostname_file: Some("/run/nexcage/p/hostname".into()),
            hosts: Some("/run/nexcage/p/hosts".into()),
        },
        node: node(),
        rootfs: "/var/lib/nexcage/rootfs/c".into(),
        cgroup: Some("/kubepods/p.scope/ct/c".into()),
        mount_sources: Vec::new(),
        image_volumes: Vec::new(),
        devices: Vec::new(),
        target_pid: None,
        localhost_seccomp: None,
    }
}

/// The configuration as JSON, with sets in order.
fn json(spec: &Spec) -> Value {
    let mut json = serde_json::to_value(spec).unwrap();
    let sets = json["process"]["capabilities"].as_object_mut().unwrap();
    for set in sets.values_mut() {
        set.as_array_mut().unwrap().sort_by_key(ToString::to_string);
    }
    json
}

/// As [`json`], with one of the three capability sets that are always equal.
fn brief(spec: &Spec) -> Value {
    let mut json = json(spec);
    let sets = json["process"]["capabilities"].as_object_mut().unwrap();
    for twin in ["effective", "permitted"] {
        assert_eq!(sets.remove(twin), sets.get("bounding").cloned());
    }
    json
}

/// One line per value; elements of a list have no number, so that one more does not move the others.
fn lines(at: &str, value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                lines(&format!("{at}.{name}"), value, into);
            }
        }
        Value::Array(list) => {
            into.extend(list.iter().map(|item| format!("{at}[] {item}")));
        }
        _ => into.extend([format!("{at} {value}")]),
    }
}

/// What a change of the plain container does to its configuration.
fn effect(change: impl FnOnce(&mut Fixture)) -> String {
    let mut fixture = plain();
    change(&mut fixture);
    let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
    lines("", &brief(&plain().build().unwrap()), &mut before);
    lines("", &brief(&fixture.build().unwrap()), &mut after);
    let gone = before.difference(&after).map(|line| format!("- {line}"));
    let new = after.difference(&before).map(|line| format!("+ {line}"));
    gone.chain(new).collect::<Vec<_>>().join("\n")
}

fn device(path: &str, kind: DeviceKind) -> HostDevice {
    HostDevice {
        path: path.into(),
        kind,
        major: 7,
        minor: 3,
        mode: 0o660,
        uid: 0,
        gid: 6,
        permissions: "rw".into(),
    }
}

#[test]
fn plain_container() {
    let json = json(&plain().build().unwrap());
    insta::assert_snapshot!("plain", serde_json::to_string_pretty(&json).unwrap());
}

#[test]
fn rights() {
    insta::assert_snapshot!(
        "privileged",
        effect(|f| {
            f.config.security.privileged = true;
            f.config.security.seccomp = SeccompProfile::Localhost("/profile.json".into());
            f.config.security.apparmor = AppArmorProfile::Localhost("strict".into());
            f.config.security.capabilities.drop_all = true;
            f.node.no_new_privileges = true;
            f.node.read_only_rootfs = true;
            f.devices = vec![device("/dev/sda", DeviceKind::Block)];
        })
    );
    let capabilities =
        |change: CapabilityChanges| effect(|f| f.config.security.capabilities = change);
    insta::assert_snapshot!(
        "capabilities_add_and_drop",
        capabilities(CapabilityChanges {
            add: vec![Capability::NetAdmin, Capability::Chown],
            drop: vec![Capability::NetRaw, Capability::SysTime],
            ..CapabilityChanges::default()
        })
    );
    insta::assert_snapshot!(
        "capabilities_all_but_one",
        capabilities(CapabilityChanges {
            add_all: true,
            drop: vec![Capability::SysAdmin],
            ..CapabilityChanges::default()
        })
    );
    insta::assert_snapshot!(
        "capabilities_none_but_one",
        capabilities(CapabilityChanges {
            drop_all: true,
            add: vec![Capability::NetBindService],
            ..CapabilityChanges::default()
        })
    );
    insta::assert_snapshot!(
        "capabilities_ambient",
        capabilities(CapabilityChanges {
            drop_all: true,
            add_ambient: vec![Capability::NetBindService, Capability::SysTime],
            drop: vec![Capability::SysTime],
            ..CapabilityChanges::default()
        })
    );
    insta::assert_snapshot!(
        "user_and_read_only_root",
        effect(|f| {
            f.user = ResolvedUser {
                uid: 1000,
                gid: 50,
                additional_gids: vec![50, 1234],
                home: "/home/user".into(),
            };
            f.config.security.readonly_rootfs = true;
            f.config.security.no_new_privs = true;
        })
    );
    insta::assert_snapshot!(
        "settings_of_the_node",
        effect(|f| {
            f.node.no_new_privileges = true;
            f.node.read_only_rootfs = true;
            f.node.default_capabilities.push(Capability::SysPtrace);
            let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile);
            f.node.rlimits = vec![limit.soft(1024_u64).hard(524_288_u64).build().unwrap()];
        })
    );
}

#[test]
fn capabilities_the_daemon_lacks() {
    let mut fixture = plain();
    fixture
        .node
        .available_capabilities
        .retain(|capability| *capability != Capability::Mknod);
    let json = json(&fixture.build().unwrap());
    assert!(!json["process"].to_string().contains("CAP_MKNOD"), "{json}");
    fixture.config.security.capabilities.add = vec![Capability::Mknod];
    assert_eq!(
        fixture.refused(),
        "config.linux.security_context.capabilities.add_capabilities: \
         the daemon itself does not have CAP_MKNOD"
    );
}

#[test]
fn host_namespaces() {
    insta::assert_snapshot!(
        "own_users",
        effect(|f| {
            f.sandbox.user = Some("/proc/42/ns/user".into());
            f.mount("/srv/data", "/data", |mount| {
                mount.mapping = Some(nexcage_sandbox::UserNamespace {
                    uids: Vec::new(),
                    gids: Vec::new(),
                });
            });
        })
    );
    insta::assert_snapshot!(
        "host_network",
        effect(|f| {
            f.sandbox.network = None;
            f.sandbox.uts = None;
            f.config.security.namespaces.host_network = true;
        })
    );
    insta::assert_snapshot!(
        "host_pid",
        effect(|f| {
            f.sandbox.pid = None;
            f.config.security.namespaces.pid = PidMode::Node;
        })
    );
    insta::assert_snapshot!(
        "host_ipc",
        effect(|f| {
            f.sandbox.ipc = None;
            f.sandbox.shm = "/dev/shm".into();
            f.config.security.namespaces.host_ipc = true;
        })
    );
    insta::assert_snapshot!(
        "shared_pid",
        effect(|f| {
            f.config.security.namespaces.pid = PidMode::Pod;
        })
    );
    insta::assert_snapshot!(
        "target_pid",
        effect(|f| {
            f.config.security.namespaces.pid = PidMode::Target("abc".into());
            f.target_pid = Some("/proc/815/ns/pid".into());
        })
    );
    // The pod's decision counts where a container says nothing.
    let implied = effect(|f| {
        f.sandbox.pid = None;
        f.config.security.namespaces.pid = PidMode::Pod;
    });
    assert_eq!(implied, r#"- .linux.namespaces[] {"type":"pid"}"#);
}

#[test]
fn host_namespaces_that_the_pod_was_not_given() {
    let at = "config.linux.security_context.namespace_options";
    for (name, change) in [
        (
            "network",
            (|n| n.host_network = true) as fn(&mut Namespaces),
        ),
        ("ipc", |n| n.host_ipc = true),
        ("pid", |n| n.pid = PidMode::Node),
    ] {
        let mut fixture = plain();
        change(&mut fixture.config.security.namespaces);
        let problem = "is NODE, but the pod sandbox has a namespace of its own";
        assert_eq!(fixture.refused(), format!("{at}.{name}: {problem}"));
    }
    let mut fixture = plain();
    fixture.config.security.namespaces.pid = PidMode::Target("abc".into());
    assert_eq!(
        fixture.refused(),
        format!(r#"{at}.target_id: container "abc" does not run in this pod"#)
    );
    let mut fixture = plain();
    fixture.sandbox.privileged = false;
    fixture.config.security.privileged = true;
    assert!(fixture.refused().contains("not made for privileged"));
}

#[test]
fn seccomp() {
    let with = |profile: SeccompProfile| {
        effect(|f| {
            f.config.security.seccomp = profile;
            f.localhost_seccomp = Some(seccomp_profile("chmod"));
        })
    };
    assert_eq!(with(SeccompProfile::Unconfined), "");
    insta::assert_snapshot!("seccomp_default", with(SeccompProfile::RuntimeDefault));
    let localhost = SeccompProfile::Localhost("/p.json".into());
    insta::assert_snapshot!("seccomp_localhost", with(localhost.clone()));
    // The filter is that of the capabilities which the container has in the end.
    let with_admin = effect(|f| {
        f.config.security.seccomp = SeccompProfile::RuntimeDefault;
        f.config.security.capabilities.add = vec![Capability::SysAdmin];
    });
    assert!(!with_admin.contains(r#""mount""#), "{with_admin}");
    let off = effect(|f| {
        f.node.default_seccomp = None;
        f.config.security.seccomp = SeccompProfile::RuntimeDefault;
    });
    assert_eq!(off, "");
    let mut unread = plain();
    unread.config.security.seccomp = localhost;
    assert!(unread.refused().contains("/p.json has not been read"));
}

#[test]
fn apparmor() {
    let on = || AppArmorFacts {
        default_profile: Some("nexcage-default".into()),
        loaded: BTreeSet::from(["nexcage-default".into(), "strict".into()]),
    };
    let profile = |facts: Option<AppArmorFacts>, wanted: AppArmorProfile| {
        let mut fixture = plain();
        fixture.node.apparmor = facts;
        fixture.config.security.apparmor = wanted;
        let spec = fixture.build().map_err(|e| e.to_string())?;
        let process = spec.process().as_ref().unwrap();
        Ok::<_, String>(process.apparmor_profile().clone().unwrap_or_default())
    };
    let localhost = |name: &str| AppArmorProfile::Localhost(name.into());
    for (wanted, name) in [
        (AppArmorProfile::Unset, "nexcage-default"),
        (AppArmorProfile::RuntimeDefault, "nexcage-default"),
        (AppArmorProfile::Unconfined, ""),
        (localhost("strict"), "strict"),
    ] {
        assert_eq!(
            profile(Some(on()), wanted.clone()).as_deref(),
            Ok(name),
            "{wanted:?}"
        );
    }
    let missing = profile(Some(on()), localhost("ghost")).unwrap_err();
    assert!(missing.contains(r#""ghost" is not loaded"#), "{missing}");
    for harmless in [AppArmorProfile::Unset, AppArmorProfile::Unconfined] {
        assert_eq!(profile(None, harmless).as_deref(), Ok(""));
    }
    for asks in [AppArmorProfile::RuntimeDefault, localhost("strict")] {
        assert!(profile(None, asks).unwrap_err().contains("AppArmor is off"));
    }
}

#[test]
fn paths_in_proc() {
    insta::assert_snapshot!(
        "proc_mount_unmasked",
        effect(|f| {
            f.config.security.masked_paths.clear();
            f.config.security.readonly_paths.clear();
        })
    );
}

#[test]
fn devices() {
    insta::assert_snapshot!(
        "devices",
        effect(|f| {
            f.devices = vec![
                device("/dev/loop3", DeviceKind::Block),
                device("/dev/fuse", DeviceKind::Char),
            ];
        })
    );
}

#[test]
fn mounts() {
    insta::assert_snapshot!(
        "mounts",
        effect(|f| {
            f.mount("/host/rw", "/data", |_| {});
            f.mount("/host/ro", "/ro", |m| m.readonly = true);
            f.mount("/host/rro", "/rro", |m| {
                m.readonly = true;
                m.recursive_read_only = true;
            });
            f.mount("/host/slave", "/slave", |m| {
                m.propagation = Propagation::HostToContainer;
            });
            f.mount("/host/flags", "/flags", |m| {
                m.options = MountFlag::ALL.to_vec();
            });
            f.mount("/images/x", "/image", |m| {
                m.readonly = true;
                m.source = MountSource::Image {
                    image: ImageSpec::default(),
                    sub_path: "a".into(),
                };
            });
            // These three take the place of the runtime's own.
            f.mount("/kubelet/hosts", "/etc/hosts", |_| {});
            f.mount("/kubelet/resolv", "/etc/resolv.conf", |_| {});
            f.mount("/kubelet/shm", "/dev/shm", |_| {});
        })
    );
    insta::assert_snapshot!(
        "mounts_bidirectional",
        effect(|f| {
            f.mount("/host/shared", "/shared", |m| {
                m.propagation = Propagation::Bidirectional;
            });
            f.mount("/host/slave", "/slave", |m| {
                m.propagation = Propagation::HostToContainer;
            });
        })
    );
    insta::assert_snapshot!(
        "mount_over_dev",
        effect(|f| f.mount("/dev", "/dev", |_| {}))
    );
    insta::assert_snapshot!(
        "image_volumes",
        effect(|f| {
            for path in ["/cache", "/data"] {
                let source = format!("/volumes{path}").into();
                f.image_volumes.push(ImageVolumeMount {
                    container_path: path.into(),
                    source,
                });
            }
            f.mount("/host/data", "/data", |_| {});
        })
    );
}

#[test]
fn no_mount_hides_another() {
    let mut fixture = plain();
    for path in ["/a/b/c", "/a", "/sys/fs/cgroup/x", "/a/b", "/proc/x", "/z"] {
        fixture.mount("/host", path, |_| {});
    }
    let spec = fixture.build().unwrap();
    let paths: Vec<&Utf8Path> = spec
        .mounts()
        .iter()
        .flatten()
        .map(|mount| Utf8Path::from_path(mount.destination()).unwrap())
        .collect();
    for (n, path) in paths.iter().enumerate() {
        let hidden = paths[..n].iter().find(|earlier| earlier.starts_with(path));
        assert_eq!(hidden, None, "by {path} in {paths:?}");
    }
}

#[test]
fn mounts_that_cannot_be() {
    let mut fixture = plain();
    fixture.node.seccomp_target.kernel = (5, 11);
    fixture.mount("/x", "/x", |m| {
        m.readonly = true;
        m.recursive_read_only = true;
    });
    assert_eq!(
        fixture.refused(),
        "config.mounts[0].recursive_read_only: needs Linux 5.12 or newer"
    );
    fixture.mount_sources.clear();
    assert!(
        fixture
            .refused()
            .contains("1 mounts were asked for, and 0 were looked up")
    );
}

fn all_limits() -> Resources {
    Resources {
        cpu_period_us: Some(100_000),
        cpu_quota_us: Some(50_000),
        cpu_shares: Some(512),
        memory_bytes: Some(64 << 20),
        memory_swap_bytes: Some(96 << 20),
        oom_score_adj: 500,
        cpuset_cpus: "0-1".into(),
        cpuset_mems: "0".into(),
        hugepages: vec![
            HugepageLimit {
                page_size: "2MB".into(),
                limit: 4 << 20,
            },
            HugepageLimit {
                page_size: "1GB".into(),
                limit: 0,
            },
        ],
        unified: [("memory.oom.group".to_owned(), "1".to_owned())].into(),
    }
}

#[test]
fn limits() {
    insta::assert_snapshot!("limits", effect(|f| f.config.resources = all_limits()));
    insta::assert_snapshot!(
        "memory_without_swap",
        effect(|f| {
            f.config.resources.memory_bytes = Some(1 << 20);
        })
    );
    insta::assert_snapshot!(
        "no_cgroups",
        effect(|f| {
            f.config.resources = all_limits();
            f.cgroup = None;
        })
    );
}

#[test]
fn limits_that_the_kernel_does_not_have() {
    let mut fixture = plain();
    fixture.config.resources = all_limits();
    fixture.node.swap_accounting = false;
    assert!(
        fixture
            .refused()
            .starts_with("config.linux.resources.memory_swap_limit_in_bytes: ")
    );
    fixture.config.resources.memory_swap_bytes = None;
    fixture.node.hugetlb = false;
    assert!(
        fixture
            .refused()
            .starts_with("config.linux.resources.hugepage_limits[0]: ")
    );
    // kubelet's zeros for every page size do no harm.
    fixture.config.resources.hugepages.remove(0);
    let spec = json(&fixture.build().unwrap());
    let resources = &spec["linux"]["resources"];
    assert_eq!(
        resources["hugepageLimits"],
        serde_json::json!([]),
        "{resources}"
    );
    assert_eq!(
        resources["memory"],
        serde_json::json!({"limit": 64 << 20}),
        "{resources}"
    );
}

#[test]
fn less_swap_than_memory() {
    let mut fixture = plain();
    fixture.config.resources.memory_bytes = Some(2);
    fixture.config.resources.memory_swap_bytes = Some(1);
    assert!(fixture.refused().contains("cannot be less than memory"));
}

#[test]
fn terminal() {
    insta::assert_snapshot!("terminal", effect(|f| f.config.tty = true));
}

#[test]
fn annotations_do_not_order_crun_about() {
    let got = effect(|f| {
        for key in ["a/b", "run.oci.handler", "org.criu.config", ""] {
            f.config.annotations.insert(key.into(), "x".into());
        }
    });
    assert_eq!(got, r#"+ .annotations.a/b "x""#);
}

#[test]
fn what_is_run() {
    let args = |command: &[&str], args: &[&str], image: &str| {
        let list = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        let mut fixture = plain();
        fixture.config.command = list(command);
        fixture.config.args = list(args);
        fixture.image = Some(image_config(image));
        let spec = fixture.build().map_err(|e| e.to_string())?;
        Ok::<_, String>(
            spec.process()
                .as_ref()
                .unwrap()
                .args()
                .clone()
                .unwrap()
                .join(" "),
        )
    };
    let image = r#"{"Entrypoint": ["e"], "Cmd": ["c"]}"#;
    assert_eq!(args(&[], &[], image).unwrap(), "e c");
    assert_eq!(args(&[], &["x"], image).unwrap(), "e x");
    assert_eq!(args(&["x"], &[], image).unwrap(), "x");
    assert_eq!(args(&["x"], &["y"], image).unwrap(), "x y");
    assert_eq!(args(&[], &[], r#"{"Cmd": ["c"]}"#).unwrap(), "c");
    assert_eq!(
        args(&[], &[], r#"{"Entrypoint": [""], "Cmd": ["c"]}"#).unwrap(),
        "c"
    );
    assert!(
        args(&[], &[], "{}")
            .unwrap_err()
            .contains("there is nothing to run")
    );
    assert!(
        args(&[""], &["x"], image)
            .unwrap_err()
            .contains("name is empty")
    );
    let mut without_image = plain();
    without_image.image = None;
    assert!(without_image.refused().contains("there is nothing to run"));
}

#[test]
fn where_it_runs() {
    let cwd = |config: &str, image: &str| {
        let mut fixture = plain();
        fixture.config.working_dir = config.into();
        fixture
            .image
            .as_mut()
            .unwrap()
            .set_working_dir(Some(image.into()));
        let spec = fixture.build().unwrap();
        spec.process().as_ref().unwrap().cwd().display().to_string()
    };
    assert_eq!(cwd("/a", "/b"), "/a");
    assert_eq!(cwd("", "/b"), "/b");
    assert_eq!(cwd("", "b"), "/b");
    assert_eq!(cwd("", ""), "/");
}

#[test]
fn environment() {
    let mut fixture = plain();
    fixture.image = Some(image_config(
        r#"{"Cmd": ["x"], "Env": ["HOSTNAME=image", "EMPTY=", "A=1=2", "HOME"]}"#,
    ));
    fixture.config.envs = [("A", "3"), ("B", "4"), ("B", "5")]
        .map(|(name, value)| EnvVar {
            name: name.into(),
            value: value.into(),
        })
        .to_vec();
    let spec = fixture.build().unwrap();
    let env = spec.process().as_ref().unwrap().env().clone().unwrap();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(env, [path, "HOSTNAME=image", "EMPTY=", "A=3", "B=5"]);
}

#[test]
fn how_it_is_stopped() {
    let signal = |config: Option<&str>, image: &str| {
        let mut fixture = plain();
        fixture.config.stop_signal = config.and_then(Signal::parse);
        fixture
            .image
            .as_mut()
            .unwrap()
            .set_stop_signal(Some(image.into()));
        let signal = stop_signal(&fixture.config, fixture.image.as_ref());
        signal.map(|s| s.to_string()).map_err(|e| e.to_string())
    };
    assert_eq!(signal(Some("SIGUSR1"), "SIGQUIT").as_deref(), Ok("SIGUSR1"));
    assert_eq!(signal(None, "SIGQUIT").as_deref(), Ok("SIGQUIT"));
    assert_eq!(signal(None, "RTMIN+3").as_deref(), Ok("SIGRTMIN+3"));
    assert_eq!(signal(None, "").as_deref(), Ok("SIGTERM"));
    assert!(signal(None, "SIGNOPE").unwrap_err().contains("SIGNOPE"));
}

#[test]
fn volumes_of_the_image() {
    let volumes = |json: &str| {
        let mut fixture = plain();
        fixture.mount("/x", "/mounted", |_| {});
        let image = image_config(&format!(r#"{{"Volumes": {{{json}}}}}"#));
        image_volumes(&fixture.config, Some(&image)).map_err(|e| e.to_string())
    };
    let got = volumes(r#""/b/": {}, "/a//b/.": {}, "c": {}, "/mounted": {}"#).unwrap();
    assert_eq!(got, ["/a/b", "/b", "/c"]);
    for bad in ["/", "", "../etc", "/a/../../b"] {
        let refused = volumes(&format!(r#""{bad}": {{}}"#)).unwrap_err();
        assert!(refused.contains("no directory"), "{bad}: {refused}");
    }
}
