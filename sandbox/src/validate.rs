//! What no shell of a pod can honour, whatever it is made of.

use crate::backend::{IdMapping, NamespaceMode, SandboxSpec};
use crate::error::SandboxError;
use crate::sysctl::validate_sysctls;
use crate::tree::CgroupTree;

/// Refuses, by field, what neither LXC nor the `host` backend can do. No side effects.
///
/// # Errors
///
/// [`SandboxError::Unsupported`], [`SandboxError::Unavailable`].
pub fn validate_spec(
    backend: &'static str,
    spec: &SandboxSpec,
    cgroups: &CgroupTree,
) -> Result<(), SandboxError> {
    let refuse = |field, reason: String| {
        Err(SandboxError::Unsupported {
            backend,
            field,
            reason,
        })
    };
    validate_sysctls(backend, spec)?;
    if let Err(error) = cgroups.locate(spec) {
        return match error {
            error @ crate::CgroupError::Parent { .. } => {
                refuse("linux.cgroup_parent", error.to_string())
            }
            error => Err(SandboxError::Unavailable {
                backend,
                reason: error.to_string(),
            }),
        };
    }
    if let Some(users) = &spec.user_namespace {
        for (field, mappings) in [
            (
                "linux.security_context.namespace_options.userns_options.uids",
                &users.uids,
            ),
            (
                "linux.security_context.namespace_options.userns_options.gids",
                &users.gids,
            ),
        ] {
            if let Err(reason) = validate_mapping(mappings) {
                return refuse(field, reason);
            }
        }
        let host = [
            ("network", spec.network),
            ("ipc", spec.ipc),
            ("pid", spec.pid),
        ];
        if let Some((name, _)) = host.iter().find(|(_, mode)| *mode == NamespaceMode::Node) {
            return refuse(
                "linux.security_context.namespace_options",
                format!(
                    "a pod with a user namespace of its own has no rights over the host's {name} namespace; use \
                     either hostUsers or the pod's own {name} namespace"
                ),
            );
        }
    }
    Ok(())
}

/// kubelet gives exactly one range, which starts at 0.
fn validate_mapping(mappings: &[IdMapping]) -> Result<(), String> {
    let [mapping] = mappings else {
        return Err(format!(
            "{} ranges are given; one is allowed",
            mappings.len()
        ));
    };
    if mapping.container_id != 0 {
        return Err("id 0 is not mapped; the range must start at container_id 0".to_owned());
    }
    if mapping.length == 0 || mapping.host_id.checked_add(mapping.length - 1).is_none() {
        return Err(format!(
            "{} ids from host_id {} on are not possible",
            mapping.length, mapping.host_id
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::UserNamespace;
    use crate::cgroup::CgroupHost;
    use crate::fixture::spec;

    fn tree() -> CgroupTree {
        CgroupTree::new(
            CgroupHost::V2 {
                root: "/sys/fs/cgroup".into(),
            },
            "nxtsb-",
            None,
        )
    }

    fn refusal(spec: &SandboxSpec) -> String {
        validate_spec("host", spec, &tree())
            .unwrap_err()
            .to_string()
    }

    fn range(container_id: u32, host_id: u32, length: u32) -> IdMapping {
        IdMapping {
            container_id,
            host_id,
            length,
        }
    }

    fn with_users(uids: Vec<IdMapping>) -> SandboxSpec {
        SandboxSpec {
            user_namespace: Some(UserNamespace {
                uids,
                gids: vec![range(0, 200_000, 65_536)],
            }),
            ..spec()
        }
    }

    #[test]
    fn ordinary_pods_pass() {
        validate_spec("host", &spec(), &tree()).unwrap();
        validate_spec(
            "host",
            &with_users(vec![range(0, 200_000, 65_536)]),
            &tree(),
        )
        .unwrap();
    }

    #[test]
    fn mappings_that_are_not_one_range_from_zero() {
        for bad in [
            vec![],
            vec![range(1, 200_000, 1)],
            vec![range(0, 200_000, 0)],
            vec![range(0, u32::MAX, 2)],
            vec![range(0, 1, 1), range(1, 5, 1)],
        ] {
            assert!(refusal(&with_users(bad)).contains("userns_options.uids"));
        }
    }

    #[test]
    fn host_namespaces_with_a_user_namespace() {
        let mut spec = with_users(vec![range(0, 200_000, 65_536)]);
        spec.network = NamespaceMode::Node;
        assert!(refusal(&spec).contains("namespace_options"));
    }

    #[test]
    fn parents_that_cannot_be() {
        let mut spec = spec();
        spec.cgroup_parent = "/a/../../b".into();
        assert!(refusal(&spec).contains("linux.cgroup_parent"));
        spec.cgroup_parent = String::new();
        let none = CgroupTree::new(CgroupHost::None, "nxtsb-", None);
        let error = validate_spec("host", &spec, &none).unwrap_err();
        assert!(matches!(error, SandboxError::Unavailable { .. }), "{error}");
    }
}
