//! The LXC configuration of a sandbox.

use std::fmt::Write as _;

use camino::Utf8Path;
use nexcage_sandbox::{INIT, INIT_CGROUP, IdMapping, NamespaceMode, SandboxSpec};
use rustix::fs::StatVfsMountFlags;

/// What a sandbox's configuration depends on beside its spec.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shell<'a> {
    /// The tree that all sandboxes share.
    pub(crate) rootfs: &'a Utf8Path,
    /// How the mount it lies on records access times, from [`atime_option`].
    pub(crate) atime: &'a str,
    /// Path of the pod's own cgroup below the cgroup mount points.
    pub(crate) relative_pod: &'a Utf8Path,
    /// User and group ids where the spec names none.
    pub(crate) ids: IdMapping,
    /// Namespaces made before the container, in the host's user namespace; `None` for a pod that has a user
    /// namespace of its own, whose container makes them.
    pub(crate) shared: Option<Shared<'a>>,
    /// AppArmor profile; `None` where the kernel has no AppArmor.
    pub(crate) apparmor_profile: Option<&'a str>,
    /// Command that LXC's shell runs when the container has stopped, to end what else is in the pod.
    pub(crate) hook: &'a str,
}

/// Paths of namespaces that the container joins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<'a> {
    /// IPC.
    pub(crate) ipc: &'a str,
    /// UTS, with its host name set.
    pub(crate) uts: &'a str,
}

/// The text of lxc.container.conf(5). Pure.
pub(crate) fn config(spec: &SandboxSpec, shell: &Shell<'_>) -> String {
    let mut config = Lines::default();
    config.comment(&format!(
        "Pod {}/{}, made by nexcage and removed with the pod.",
        spec.namespace, spec.name
    ));
    if shell.shared.is_none() {
        config.set("lxc.uts.name", &spec.hostname);
    }
    namespaces(&mut config, shell);
    config.set("lxc.arch", std::env::consts::ARCH);
    // Everything in it is owned by the host's root, which is nobody inside: it can be read and executed, no more. So it
    // needs no idmapped mount, which not every file system can have.
    config.set("lxc.rootfs.path", &format!("dir:{}", shell.rootfs));
    rootfs_options(&mut config, shell);
    config.set("lxc.init.cmd", &format!("{INIT} -P"));
    // catatonit ends on it; LXC's default is SIGPWR.
    config.set("lxc.signal.halt", "SIGTERM");
    users(&mut config, spec, shell.ids);
    network(&mut config, spec);
    if let Some(profile) = shell.apparmor_profile {
        config.set("lxc.apparmor.profile", profile);
        if profile == GENERATED_PROFILE {
            config.set("lxc.apparmor.allow_nesting", "1");
        }
    }
    cgroups(&mut config, shell);
    config.set("lxc.hook.post-stop", shell.hook);
    config.text()
}

/// The mount option that keeps access times as they are on a mount with these flags (mount(2)).
pub(crate) fn atime_option(flags: StatVfsMountFlags) -> &'static str {
    if flags.contains(StatVfsMountFlags::NOATIME) {
        "noatime"
    } else if flags.contains(StatVfsMountFlags::RELATIME) {
        "relatime"
    } else {
        "strictatime"
    }
}

/// LXC writes a profile for the container and loads it.
pub(crate) const GENERATED_PROFILE: &str = "generated";

fn users(config: &mut Lines, spec: &SandboxSpec, ids: IdMapping) {
    let (uids, gids) = match &spec.user_namespace {
        Some(users) => (users.uids.as_slice(), users.gids.as_slice()),
        None => (&[ids][..], &[ids][..]),
    };
    for (kind, mappings) in [("u", uids), ("g", gids)] {
        for m in mappings {
            let range = format!("{kind} {} {} {}", m.container_id, m.host_id, m.length);
            config.set("lxc.idmap", &range);
        }
    }
}

/// Those that were made beforehand.
pub(super) fn namespaces(config: &mut Lines, shell: &Shell<'_>) {
    if let Some(shared) = shell.shared {
        config.set("lxc.namespace.share.uts", shared.uts);
        config.set("lxc.namespace.share.ipc", shared.ipc);
    }
}

/// LXC asks for relatime where it is told nothing, and in a user namespace the kernel lets nobody change what a mount does
/// with access times (mount_namespaces(7)).
pub(super) fn rootfs_options(config: &mut Lines, shell: &Shell<'_>) {
    config.set("lxc.rootfs.options", &format!("ro,{}", shell.atime));
}

pub(super) fn network(config: &mut Lines, spec: &SandboxSpec) {
    // sysfs can be mounted only over a network namespace of the container's own user namespace. catatonit does
    // not miss it.
    let mounts = match (spec.network, &spec.netns) {
        (NamespaceMode::Node, _) => {
            config.set("lxc.net.0.type", "none");
            "proc:mixed"
        }
        (NamespaceMode::Pod, Some(path)) => {
            config.set("lxc.namespace.share.net", path.as_str());
            "proc:mixed"
        }
        (NamespaceMode::Pod, None) => {
            config.set("lxc.net.0.type", "empty");
            "proc:mixed sys:mixed"
        }
    };
    config.set("lxc.mount.auto", mounts);
}

pub(super) fn cgroups(config: &mut Lines, shell: &Shell<'_>) {
    let pod = shell.relative_pod;
    config.set("lxc.cgroup.relative", "0");
    config.set("lxc.cgroup.dir.monitor", &format!("{pod}/monitor"));
    // Where the monitor goes at its end, to remove its own cgroup; by default a directory in the root that stays.
    config.set("lxc.cgroup.dir.monitor.pivot", pod.as_str());
    config.set("lxc.cgroup.dir.container", &format!("{pod}/ct"));
    config.set("lxc.cgroup.dir.container.inner", INIT_CGROUP);
}

/// Lines of a configuration under construction.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: String,
}

impl Lines {
    /// One `key = value` line. A line break in a value would be another key: it becomes a space.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.text, "{key} = {}", value.replace(['\n', '\r'], " "));
    }

    /// Forgets all that was set before: for keys that are lists to LXC.
    pub(super) fn clear(&mut self, key: &str) {
        let _ = writeln!(self.text, "{key} =");
    }

    pub(super) fn text(self) -> String {
        self.text
    }

    pub(super) fn comment(&mut self, text: &str) {
        let _ = writeln!(self.text, "# {}", text.replace(['\n', '\r'], " "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::spec;
    use nexcage_sandbox::UserNamespace;
    use proptest::prelude::*;

    const POD: &str = "kubepods.slice/kubepods-burstable.slice/nexcage-0123.scope";

    fn built(spec: &SandboxSpec, apparmor_profile: Option<&str>) -> String {
        let shell = Shell {
            rootfs: "/usr/lib/nexcage/sandbox".into(),
            atime: "relatime",
            relative_pod: POD.into(),
            ids: IdMapping {
                container_id: 0,
                host_id: 100_000,
                length: 65_536,
            },
            shared: spec.user_namespace.is_none().then_some(Shared {
                ipc: "/proc/123/fd/7",
                uts: "/proc/123/fd/8",
            }),
            apparmor_profile,
            hook: "/bin/true",
        };
        config(spec, &shell).replace(std::env::consts::ARCH, "<arch>")
    }

    #[test]
    fn an_ordinary_pod() {
        insta::assert_snapshot!(built(&spec(), None));
    }

    #[test]
    fn apparmor() {
        insta::assert_snapshot!(built(&spec(), Some(GENERATED_PROFILE)));
        let own = built(&spec(), Some("my-profile"));
        assert!(own.contains("lxc.apparmor.profile = my-profile\n"));
        assert!(!own.contains("allow_nesting"));
    }

    #[test]
    fn host_network() {
        let spec = SandboxSpec {
            network: NamespaceMode::Node,
            netns: None,
            ..spec()
        };
        insta::assert_snapshot!(built(&spec, None));
    }

    #[test]
    fn a_user_namespace_of_its_own() {
        let range = |host_id| {
            vec![IdMapping {
                container_id: 0,
                host_id,
                length: 65_536,
            }]
        };
        let spec = SandboxSpec {
            netns: None,
            user_namespace: Some(UserNamespace {
                uids: range(200_000),
                gids: range(300_000),
            }),
            ..spec()
        };
        insta::assert_snapshot!(built(&spec, None));
    }

    #[test]
    fn access_times_stay_as_they_are() {
        let also = StatVfsMountFlags::NODIRATIME | StatVfsMountFlags::NOSUID;
        let names = [
            (StatVfsMountFlags::NOATIME, "noatime"),
            (StatVfsMountFlags::RELATIME, "relatime"),
            (StatVfsMountFlags::empty(), "strictatime"),
        ];
        for (flags, name) in names {
            assert_eq!(atime_option(flags | also), name);
        }
    }

    proptest! {
        #[test]
        fn no_value_becomes_a_key(name in "\\PC*[\n\r]?lxc.hook.pre-start = x", hostname in "[a-z\n]{1,20}") {
            let spec = SandboxSpec { name, hostname, ..spec() };
            let known = built(&crate::fixture::spec(), None).lines().count();
            let text = built(&spec, None);
            prop_assert_eq!(text.lines().count(), known);
            let hooks = text.lines().any(|line| line.starts_with("lxc.hook.pre-start"));
            prop_assert!(!hooks);
        }
    }
}
