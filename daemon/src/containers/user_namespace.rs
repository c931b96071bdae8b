//! Containers of pods with a user namespace of their own.
//!
//! The sandbox holds the namespace; containers join it, their root filesystems and image volumes are mounted with its mapping, and so are
//! the volumes for which kubelet asks it. Whatever cannot be mapped is refused: unmapped, its files would belong to nobody
//! inside, or a container's root could leave files of the host's root behind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::MountOptions;
use nexcage_image_store::idmap::mapped_copy;
use nexcage_sandbox::UserNamespace;

use super::config::ContainerSpec;
use super::spec::file_system_of;
use super::users::ResolvedUser;
use crate::cri::InvalidField;
use crate::error::OpError;
use crate::pods::PodRecord;

const AT: &str = "config.linux.security_context";

/// Refuses a container that wants another user namespace than its pod has, for itself or for a mount.
pub(super) fn agree(spec: &ContainerSpec, pod: Option<&UserNamespace>) -> Result<(), InvalidField> {
    let asked = &spec.security.namespaces;
    let field = || format!("{AT}.namespace_options.userns_options");
    match (&asked.user, pod) {
        (Some(_), None) => {
            let problem = "is POD, but the pod sandbox has none of its own";
            return Err(InvalidField::invalid(field(), problem));
        }
        (Some(own), Some(pod)) if own != pod => {
            return Err(InvalidField::invalid(
                field(),
                "must be those of the pod sandbox",
            ));
        }
        (None, Some(_)) if asked.host_user => {
            let problem = "is NODE, but the pod sandbox has a user namespace of its own";
            return Err(InvalidField::invalid(field(), problem));
        }
        _ => {}
    }
    for (n, mount) in spec.mounts.iter().enumerate() {
        if mount.mapping.is_some() && mount.mapping.as_ref() != pod {
            let problem = "must be the mapping of the pod's user namespace";
            return Err(InvalidField::invalid(
                format!("config.mounts[{n}].uidMappings"),
                problem,
            ));
        }
    }
    Ok(())
}

/// Refuses users and groups that do not exist in the namespace.
pub(super) fn has_ids(pod: &UserNamespace, user: &ResolvedUser) -> Result<(), InvalidField> {
    let groups = user.additional_gids.iter().chain([&user.gid]);
    let ids = [("run_as_user", user.uid)]
        .into_iter()
        .chain(groups.map(|gid| ("supplemental_groups", *gid)));
    for (field, id) in ids {
        if !pod.has(id) {
            let problem = format!("{id} is not mapped in the pod's user namespace");
            return Err(InvalidField::invalid(format!("{AT}.{field}"), problem));
        }
    }
    Ok(())
}

/// The namespace that the sandbox holds; `None` for a pod that has none of its own.
pub(super) fn open(pod: &PodRecord) -> Result<Option<OwnedFd>, OpError> {
    let (Some(_), Some(running)) = (&pod.spec.user_namespace, &pod.running) else {
        return Ok(None);
    };
    let path = format!("/proc/{}/ns/user", running.init.pid);
    let file = std::fs::File::open(&path).map_err(OpError::step(format!(
        "cannot open the pod's user namespace {path}"
    )))?;
    Ok(Some(file.into()))
}

/// How to mount a root filesystem or image of the pod.
pub(super) fn mount_options(pod: &PodRecord) -> Result<MountOptions, OpError> {
    Ok(MountOptions { idmap: open(pod)? })
}

/// Refuses volumes on file systems whose ids cannot be mapped. Blocking.
///
/// `mountinfo` is the text of `/proc/self/mountinfo`, `sources` are the host paths of the mounts.
pub(super) fn can_map(
    spec: &ContainerSpec,
    sources: &[Utf8PathBuf],
    mountinfo: &str,
    userns: BorrowedFd<'_>,
) -> Result<(), InvalidField> {
    let mapped = spec.mounts.iter().zip(sources).enumerate();
    for (n, (_, source)) in mapped.filter(|(_, (mount, _))| mount.mapping.is_some()) {
        if let Err(error) = try_to_map(source, userns) {
            let kind = file_system_of(source, mountinfo);
            let problem = format!(
                "{source} is on a {} file system, which cannot be id-mapped ({error}); use a volume on another one, or \
                 hostUsers: true",
                kind.unwrap_or("nameless")
            );
            return Err(InvalidField::unsupported(
                format!("config.mounts[{n}].uidMappings"),
                problem,
            ));
        }
    }
    Ok(())
}

fn try_to_map(source: &Utf8Path, userns: BorrowedFd<'_>) -> std::io::Result<()> {
    mapped_copy(source, userns.as_fd()).map(drop)
}

#[cfg(test)]
mod tests {
    use nexcage_sandbox::IdMapping;

    use super::*;
    use crate::containers::config::{Mount, MountSource, Namespaces, Propagation};

    fn namespace(host_id: u32) -> UserNamespace {
        let range = vec![IdMapping {
            container_id: 0,
            host_id,
            length: 65536,
        }];
        UserNamespace {
            uids: range.clone(),
            gids: range,
        }
    }

    fn asking(user: Option<UserNamespace>, host_user: bool) -> ContainerSpec {
        let mut spec = ContainerSpec::default();
        spec.security.namespaces = Namespaces {
            user,
            host_user,
            ..Namespaces::default()
        };
        spec
    }

    fn field(result: Result<(), InvalidField>) -> String {
        result.unwrap_err().field
    }

    #[test]
    fn a_container_has_the_namespace_of_its_pod() {
        let pod = namespace(100_000);
        assert!(agree(&asking(None, false), Some(&pod)).is_ok());
        assert!(agree(&asking(Some(pod.clone()), false), Some(&pod)).is_ok());
        assert!(agree(&asking(None, true), None).is_ok());
        let at = "config.linux.security_context.namespace_options.userns_options";
        assert_eq!(field(agree(&asking(None, true), Some(&pod))), at);
        assert_eq!(field(agree(&asking(Some(pod.clone()), false), None)), at);
        let other = asking(Some(namespace(200_000)), false);
        assert_eq!(field(agree(&other, Some(&pod))), at);
    }

    #[test]
    fn a_mount_has_the_mapping_of_its_pod() {
        let pod = namespace(100_000);
        let mut spec = asking(None, false);
        spec.mounts = vec![Mount {
            container_path: "/data".into(),
            source: MountSource::HostPath("/srv".into()),
            readonly: false,
            recursive_read_only: false,
            propagation: Propagation::Private,
            selinux_relabel: false,
            mapping: Some(pod.clone()),
            options: Vec::new(),
        }];
        assert!(agree(&spec, Some(&pod)).is_ok());
        assert_eq!(field(agree(&spec, None)), "config.mounts[0].uidMappings");
        let other = agree(&spec, Some(&namespace(1)));
        assert_eq!(field(other), "config.mounts[0].uidMappings");
    }

    #[test]
    fn ids_outside_of_the_namespace_are_refused() {
        let pod = namespace(100_000);
        let user = |uid, gid, groups: &[u32]| ResolvedUser {
            uid,
            gid,
            additional_gids: groups.to_vec(),
            home: "/".into(),
        };
        assert!(has_ids(&pod, &user(0, 65_535, &[7])).is_ok());
        let at = |name: &str| format!("config.linux.security_context.{name}");
        assert_eq!(
            field(has_ids(&pod, &user(65_536, 0, &[]))),
            at("run_as_user")
        );
        let groups = has_ids(&pod, &user(0, 0, &[70_000]));
        assert_eq!(field(groups), at("supplemental_groups"));
    }
}
