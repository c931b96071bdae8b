//! `LinuxContainerSecurityContext` to [`SecurityContext`].

use nexcage_cri_api::v1;
use oci_spec::runtime::Capability;

use super::container::{absolute, no_nul, unknown_number};
use super::user_namespace::user_namespace;
use crate::containers::capability;
use crate::containers::config::{
    AppArmorProfile, CapabilityChanges, Namespaces, PidMode, RunAs, RunAsUser, SeccompProfile,
    SecurityContext, SelinuxOptions, SupplementalGroupsPolicy,
};
use crate::cri::invalid::InvalidField;

/// Where all of these fields are.
const AT: &str = "config.linux.security_context";

type Checked<T> = Result<T, InvalidField>;

pub(super) fn security_context(
    context: v1::LinuxContainerSecurityContext,
) -> Checked<SecurityContext> {
    #[allow(
        deprecated,
        reason = "the two old fields are still part of CRI, and critest sends them"
    )]
    let v1::LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options,
        selinux_options,
        run_as_user,
        run_as_group,
        run_as_username,
        readonly_rootfs,
        supplemental_groups,
        supplemental_groups_policy,
        no_new_privs,
        masked_paths,
        readonly_paths,
        seccomp,
        apparmor,
        apparmor_profile,
        seccomp_profile_path,
    } = context;
    Ok(SecurityContext {
        capabilities: capability_changes(capabilities.unwrap_or_default())?,
        privileged,
        namespaces: namespaces(namespace_options.unwrap_or_default())?,
        run_as: run_as(run_as_user, run_as_group, run_as_username)?,
        supplemental_groups: groups(supplemental_groups)?,
        supplemental_groups_policy: groups_policy(supplemental_groups_policy)?,
        readonly_rootfs,
        no_new_privs,
        masked_paths: paths("masked_paths", masked_paths)?,
        readonly_paths: paths("readonly_paths", readonly_paths)?,
        seccomp: match seccomp {
            Some(profile) => seccomp_profile(profile)?,
            None => old_seccomp_profile(&seccomp_profile_path)?,
        },
        apparmor: match apparmor {
            Some(profile) => apparmor_message(profile)?,
            None => old_apparmor_profile(&apparmor_profile)?,
        },
        selinux: selinux(selinux_options.unwrap_or_default()),
    })
}

fn capability_changes(changes: v1::Capability) -> Checked<CapabilityChanges> {
    let v1::Capability {
        add_capabilities,
        drop_capabilities,
        add_ambient_capabilities,
    } = changes;
    let (add_all, add) = capabilities("add_capabilities", &add_capabilities)?;
    let (drop_all, drop) = capabilities("drop_capabilities", &drop_capabilities)?;
    let name = "add_ambient_capabilities";
    let (ambient_all, add_ambient) = capabilities(name, &add_ambient_capabilities)?;
    if ambient_all {
        let problem = "ALL cannot be ambient; name the capabilities";
        return Err(InvalidField::unsupported(
            format!("{AT}.capabilities.{name}"),
            problem,
        ));
    }
    Ok(CapabilityChanges {
        add_all,
        add,
        drop_all,
        drop,
        add_ambient,
    })
}

/// Whether `ALL` is among them, and the others. With or without `CAP_`, in any case.
fn capabilities(field: &str, names: &[String]) -> Checked<(bool, Vec<Capability>)> {
    let mut all = false;
    let mut list = Vec::new();
    for name in names {
        if name.eq_ignore_ascii_case("ALL") {
            all = true;
            continue;
        }
        list.push(capability(name).ok_or_else(|| {
            let problem = format!("{name:?} is not a capability of Linux");
            InvalidField::invalid(format!("{AT}.capabilities.{field}"), problem)
        })?);
    }
    Ok((all, list))
}

fn namespaces(options: v1::NamespaceOption) -> Checked<Namespaces> {
    let v1::NamespaceOption {
        network,
        pid,
        ipc,
        target_id,
        userns_options,
    } = options;
    let field = |name: &str| format!("{AT}.namespace_options.{name}");
    let is_host = |name: &str, value: i32| match mode(&field(name), value)? {
        v1::NamespaceMode::Pod => Ok(false),
        v1::NamespaceMode::Node => Ok(true),
        _ => Err(InvalidField::invalid(field(name), "must be POD or NODE")),
    };
    let pid = match mode(&field("pid"), pid)? {
        v1::NamespaceMode::Pod => PidMode::Pod,
        v1::NamespaceMode::Container => PidMode::Container,
        v1::NamespaceMode::Node => PidMode::Node,
        v1::NamespaceMode::Target if target_id.is_empty() => {
            let problem = "is empty, but pid is TARGET";
            return Err(InvalidField::invalid(field("target_id"), problem));
        }
        v1::NamespaceMode::Target => PidMode::Target(target_id.clone()),
    };
    if !target_id.is_empty() && !matches!(pid, PidMode::Target(_)) {
        let problem = "is given, but pid is not TARGET";
        return Err(InvalidField::invalid(field("target_id"), problem));
    }
    // Unlike an empty message, a missing one is what runtimes without user namespaces get.
    let said = userns_options.is_some();
    let user = userns_options.map(user_namespace).transpose()?.flatten();
    Ok(Namespaces {
        host_user: said && user.is_none(),
        user,
        host_network: is_host("network", network)?,
        host_ipc: is_host("ipc", ipc)?,
        pid,
    })
}

fn mode(field: &str, value: i32) -> Checked<v1::NamespaceMode> {
    v1::NamespaceMode::try_from(value).map_err(|_| unknown_number(field, value))
}

fn run_as(
    user: Option<v1::Int64Value>,
    group: Option<v1::Int64Value>,
    username: String,
) -> Checked<Option<RunAs>> {
    let field = |name: &str| format!("{AT}.{name}");
    no_nul(&field("run_as_username"), &username)?;
    let user = match (user, username.is_empty()) {
        (Some(_), false) => {
            let problem = "stands beside run_as_user; only one may be given";
            return Err(InvalidField::invalid(field("run_as_username"), problem));
        }
        (Some(v1::Int64Value { value }), true) => RunAsUser::Uid(id(&field("run_as_user"), value)?),
        (None, false) => RunAsUser::Name(username),
        (None, true) if group.is_some() => {
            let problem = "is given without run_as_user or run_as_username";
            return Err(InvalidField::invalid(field("run_as_group"), problem));
        }
        (None, true) => return Ok(None),
    };
    let group = group
        .map(|v1::Int64Value { value }| id(&field("run_as_group"), value))
        .transpose()?;
    Ok(Some(RunAs { user, group }))
}

/// A user or group id. The highest 32-bit number means "none" to the kernel.
fn id(field: &str, value: i64) -> Checked<u32> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| {
            InvalidField::invalid(field, format!("{value} is not an id (0 to 4294967294)"))
        })
}

fn groups(groups: Vec<i64>) -> Checked<Vec<u32>> {
    let convert = |(n, value)| id(&format!("{AT}.supplemental_groups[{n}]"), value);
    groups.into_iter().enumerate().map(convert).collect()
}

fn groups_policy(value: i32) -> Checked<SupplementalGroupsPolicy> {
    match v1::SupplementalGroupsPolicy::try_from(value) {
        Ok(v1::SupplementalGroupsPolicy::Merge) => Ok(SupplementalGroupsPolicy::Merge),
        Ok(v1::SupplementalGroupsPolicy::Strict) => Ok(SupplementalGroupsPolicy::Strict),
        Err(_) => Err(unknown_number(
            &format!("{AT}.supplemental_groups_policy"),
            value,
        )),
    }
}

fn paths(name: &str, paths: Vec<String>) -> Checked<Vec<String>> {
    let convert = |(n, path): (usize, String)| {
        absolute(&format!("{AT}.{name}[{n}]"), &path).map(camino::Utf8PathBuf::into_string)
    };
    paths.into_iter().enumerate().map(convert).collect()
}

/// The type of a profile and the name that goes with it, if one does.
fn profile_type(
    field: &str,
    profile: v1::SecurityProfile,
) -> Checked<(v1::security_profile::ProfileType, String)> {
    use v1::security_profile::ProfileType;
    let v1::SecurityProfile {
        profile_type,
        localhost_ref,
    } = profile;
    let kind = ProfileType::try_from(profile_type)
        .map_err(|_| unknown_number(&format!("{field}.profile_type"), profile_type))?;
    let at = || format!("{field}.localhost_ref");
    match (kind, localhost_ref.is_empty()) {
        (ProfileType::Localhost, true) => Err(InvalidField::invalid(
            at(),
            "is empty, but profile_type is Localhost",
        )),
        (ProfileType::Localhost, false) => Ok((kind, localhost_ref)),
        (_, true) => Ok((kind, localhost_ref)),
        (_, false) => Err(InvalidField::invalid(
            at(),
            "is given, but profile_type is not Localhost",
        )),
    }
}

fn seccomp_profile(profile: v1::SecurityProfile) -> Checked<SeccompProfile> {
    use v1::security_profile::ProfileType;
    let field = format!("{AT}.seccomp");
    Ok(match profile_type(&field, profile)? {
        (ProfileType::RuntimeDefault, _) => SeccompProfile::RuntimeDefault,
        (ProfileType::Unconfined, _) => SeccompProfile::Unconfined,
        (ProfileType::Localhost, path) => {
            SeccompProfile::Localhost(absolute(&format!("{field}.localhost_ref"), &path)?)
        }
    })
}

fn old_seccomp_profile(text: &str) -> Checked<SeccompProfile> {
    let field = format!("{AT}.seccomp_profile_path");
    match text {
        "" | "unconfined" => Ok(SeccompProfile::Unconfined),
        "runtime/default" | "docker/default" => Ok(SeccompProfile::RuntimeDefault),
        _ => match text.strip_prefix("localhost/") {
            // The path follows the slash, with one of its own or not.
            Some(path) => {
                let path = format!("/{}", path.trim_start_matches('/'));
                absolute(&field, &path).map(SeccompProfile::Localhost)
            }
            None => Err(not_a_profile(field, text)),
        },
    }
}

fn apparmor_message(profile: v1::SecurityProfile) -> Checked<AppArmorProfile> {
    use v1::security_profile::ProfileType;
    let field = format!("{AT}.apparmor");
    Ok(match profile_type(&field, profile)? {
        (ProfileType::RuntimeDefault, _) => AppArmorProfile::RuntimeDefault,
        (ProfileType::Unconfined, _) => AppArmorProfile::Unconfined,
        (ProfileType::Localhost, name) => {
            let name = name.strip_prefix("localhost/").unwrap_or(&name);
            AppArmorProfile::Localhost(profile_name(format!("{field}.localhost_ref"), name)?)
        }
    })
}

fn old_apparmor_profile(text: &str) -> Checked<AppArmorProfile> {
    let field = format!("{AT}.apparmor_profile");
    match text {
        "" => Ok(AppArmorProfile::Unset),
        "runtime/default" => Ok(AppArmorProfile::RuntimeDefault),
        "unconfined" => Ok(AppArmorProfile::Unconfined),
        _ => match text.strip_prefix("localhost/") {
            Some(name) => profile_name(field, name).map(AppArmorProfile::Localhost),
            None => Err(not_a_profile(field, text)),
        },
    }
}

fn profile_name(field: String, name: &str) -> Checked<String> {
    no_nul(&field, name)?;
    if name.is_empty() {
        return Err(InvalidField::invalid(field, "names no profile"));
    }
    Ok(name.to_owned())
}

fn not_a_profile(field: String, text: &str) -> InvalidField {
    let problem =
        format!("{text:?} is none of runtime/default, unconfined and localhost/ with a profile");
    InvalidField::invalid(field, problem)
}

fn selinux(options: v1::SeLinuxOption) -> SelinuxOptions {
    let v1::SeLinuxOption {
        user,
        role,
        r#type,
        level,
    } = options;
    SelinuxOptions {
        user,
        role,
        r#type,
        level,
    }
}
