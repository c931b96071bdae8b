//! `UserNamespace` and `IDMapping`: of pods, of containers, of mounts.

use nexcage_cri_api::v1;
use nexcage_sandbox::{IdMapping, UserNamespace};

use crate::cri::invalid::InvalidField;

/// Where it is in the configuration of a pod and in that of a container.
const AT: &str = "config.linux.security_context.namespace_options.userns_options";

/// The user namespace that is asked for; `None` for the host's.
pub(super) fn user_namespace(
    options: v1::UserNamespace,
) -> Result<Option<UserNamespace>, InvalidField> {
    let v1::UserNamespace { mode, uids, gids } = options;
    match v1::NamespaceMode::try_from(mode) {
        Ok(v1::NamespaceMode::Node) if uids.is_empty() && gids.is_empty() => Ok(None),
        Ok(v1::NamespaceMode::Node) => Err(InvalidField::invalid(
            format!("{AT}.uids"),
            "must be empty with mode NODE",
        )),
        // CRI numbers POD as 0, so a message that is merely present asks for it.
        Ok(v1::NamespaceMode::Pod) => {
            both(&uids, &gids, &format!("{AT}.uids"), &format!("{AT}.gids")).map(Some)
        }
        _ => Err(InvalidField::invalid(
            format!("{AT}.mode"),
            "must be POD or NODE",
        )),
    }
}

/// The mapping of a mount; `None` if it has none.
pub(super) fn mount_mapping(
    field: &dyn Fn(&str) -> String,
    uids: &[v1::IdMapping],
    gids: &[v1::IdMapping],
) -> Result<Option<UserNamespace>, InvalidField> {
    if uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    both(uids, gids, &field("uidMappings"), &field("gidMappings")).map(Some)
}

/// One range, from 0, and the same for users and groups: what kubelet gives.
fn both(
    uids: &[v1::IdMapping],
    gids: &[v1::IdMapping],
    uids_field: &str,
    gids_field: &str,
) -> Result<UserNamespace, InvalidField> {
    let namespace = UserNamespace {
        uids: mappings(uids_field, uids)?,
        gids: mappings(gids_field, gids)?,
    };
    if namespace.uids != namespace.gids {
        return Err(InvalidField::invalid(
            gids_field,
            "must equal those of users",
        ));
    }
    Ok(namespace)
}

fn mappings(field: &str, list: &[v1::IdMapping]) -> Result<Vec<IdMapping>, InvalidField> {
    let [mapping] = list else {
        return Err(InvalidField::invalid(
            field,
            "must hold exactly one mapping",
        ));
    };
    let v1::IdMapping {
        host_id,
        container_id,
        length,
    } = *mapping;
    if container_id != 0 {
        return Err(InvalidField::invalid(field, "must map container id 0"));
    }
    if length == 0 || host_id.checked_add(length).is_none() {
        return Err(InvalidField::invalid(
            field,
            "has a length that is 0 or runs past 2^32",
        ));
    }
    Ok(vec![IdMapping {
        container_id,
        host_id,
        length,
    }])
}

/// The message that a mapping was made of.
pub(super) fn mapping_messages(list: &[IdMapping]) -> Vec<v1::IdMapping> {
    let message = |m: &IdMapping| v1::IdMapping {
        host_id: m.host_id,
        container_id: m.container_id,
        length: m.length,
    };
    list.iter().map(message).collect()
}
