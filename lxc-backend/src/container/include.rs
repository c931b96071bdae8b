//! The LXC configuration of a sandbox, as far as it differs from what Proxmox makes.

use nexcage_sandbox::SandboxSpec;

use super::config::{
    GENERATED_PROFILE, Lines, Shell, cgroups, namespaces, network, rootfs_options,
};

/// Limits that Proxmox sets from its own configuration, rounded and with a `memory.high` of which Kubernetes knows nothing. The pod's are
/// set on its cgroup when the container runs.
const LIMITS: &[&str] = &[
    "lxc.cgroup2.memory.max",
    "lxc.cgroup2.memory.high",
    "lxc.cgroup2.memory.swap.max",
    "lxc.cgroup2.cpu.max",
    "lxc.cgroup2.cpu.weight",
];

/// The text of a file that Proxmox's LXC configuration of the container includes at its end. Pure.
///
/// It takes back what LXC's and Proxmox's defaults say and a pod is not: `lxc.mount.auto` because sysfs cannot be mounted over a network
/// namespace of the host's root, the host name because nobody in the container may set that of a namespace that is the host's root's.
pub(crate) fn include(spec: &SandboxSpec, shell: &Shell<'_>) -> String {
    let mut config = Lines::default();
    config.comment(&format!(
        "Pod {}/{}: what Proxmox's container of it includes. It is there while the container runs, and nobody can start it without.",
        spec.namespace, spec.name
    ));
    if shell.shared.is_some() {
        config.clear("lxc.uts.name");
    }
    namespaces(&mut config, shell);
    rootfs_options(&mut config, shell);
    config.clear("lxc.mount.auto");
    network(&mut config, spec);
    // Proxmox has LXC generate one, with rules of its own.
    if let Some(profile) = shell.apparmor_profile
        && profile != GENERATED_PROFILE
    {
        config.set("lxc.apparmor.profile", profile);
    }
    for key in LIMITS {
        config.clear(key);
    }
    cgroups(&mut config, shell);
    // Not post-stop: those of Proxmox and lxcfs come first there, and when one of them fails LXC runs no other.
    config.set("lxc.hook.stop", shell.hook);
    config.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::config::Shared;
    use crate::fixture::spec;
    use nexcage_sandbox::{IdMapping, NamespaceMode, UserNamespace};
    use proptest::prelude::*;

    fn built(spec: &SandboxSpec, apparmor_profile: Option<&str>) -> String {
        let shell = Shell {
            rootfs: "/usr/lib/nexcage/sandbox".into(),
            atime: "relatime",
            relative_pod: "kubepods.slice/nexcage-0123.scope".into(),
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
        include(spec, &shell)
    }

    #[test]
    fn an_ordinary_pod() {
        insta::assert_snapshot!(built(&spec(), Some(GENERATED_PROFILE)));
        assert_eq!(
            built(&spec(), None),
            built(&spec(), Some(GENERATED_PROFILE))
        );
        let unconfined = built(&spec(), Some("unconfined"));
        assert!(unconfined.contains("lxc.apparmor.profile = unconfined\n"));
    }

    #[test]
    fn host_network() {
        let spec = SandboxSpec {
            network: NamespaceMode::Node,
            netns: None,
            ..spec()
        };
        let text = built(&spec, None);
        assert!(
            text.contains("lxc.mount.auto =\nlxc.net.0.type = none\nlxc.mount.auto = proc:mixed\n")
        );
    }

    #[test]
    fn a_user_namespace_of_its_own() {
        let range = vec![IdMapping {
            container_id: 0,
            host_id: 200_000,
            length: 65_536,
        }];
        let spec = SandboxSpec {
            netns: None,
            user_namespace: Some(UserNamespace {
                uids: range.clone(),
                gids: range,
            }),
            ..spec()
        };
        insta::assert_snapshot!(built(&spec, None));
    }

    proptest! {
        #[test]
        fn no_value_becomes_a_key(name in "\\PC*[\n\r]?lxc.hook.pre-start = x") {
            let known = built(&spec(), None).lines().count();
            let spec = SandboxSpec { name, ..spec() };
            prop_assert_eq!(built(&spec, None).lines().count(), known);
        }
    }
}
