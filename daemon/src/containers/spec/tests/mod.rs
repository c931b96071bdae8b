//! Golden files. `plain` is a whole configuration; the others show what differs from it.

mod files;
mod limits;
mod process;
mod rights;

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

    pub(super) fn refused(&self) -> String {
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

pub(super) fn image_config(json: &str) -> image::Config {
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
pub(super) fn plain() -> Fixture {
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
pub(super) fn json(spec: &Spec) -> Value {
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
pub(super) fn effect(change: impl FnOnce(&mut Fixture)) -> String {
    let mut fixture = plain();
    change(&mut fixture);
    let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
    lines("", &brief(&plain().build().unwrap()), &mut before);
    lines("", &brief(&fixture.build().unwrap()), &mut after);
    let gone = before.difference(&after).map(|line| format!("- {line}"));
    let new = after.difference(&before).map(|line| format!("+ {line}"));
    gone.chain(new).collect::<Vec<_>>().join("\n")
}

pub(super) fn device(path: &str, kind: DeviceKind) -> HostDevice {
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
