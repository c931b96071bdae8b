//! Which AppArmor profile confines a container.

use super::{SpecError, SpecInput};
use crate::containers::config::AppArmorProfile;
use crate::cri::InvalidField;

const FIELD: &str = "config.linux.security_context.apparmor";

/// The profile's name, or none for no confinement.
pub(super) fn profile(input: &SpecInput<'_>) -> Result<Option<String>, SpecError> {
    let security = &input.config.security;
    let asks = matches!(
        security.apparmor,
        AppArmorProfile::RuntimeDefault | AppArmorProfile::Localhost(_)
    );
    let Some(facts) = &input.node.apparmor else {
        // Never start unconfined what was to be confined.
        return match asks && !security.privileged {
            true => Err(InvalidField::unsupported(FIELD, "AppArmor is off on this node").into()),
            false => Ok(None),
        };
    };
    if security.privileged {
        return Ok(None);
    }
    let name = match &security.apparmor {
        AppArmorProfile::Unconfined => None,
        AppArmorProfile::Unset | AppArmorProfile::RuntimeDefault => facts.default_profile.as_ref(),
        AppArmorProfile::Localhost(name) => Some(name),
    };
    // "unconfined" is no profile that is loaded, but a name that administrators may configure.
    let Some(name) = name.filter(|name| *name != "unconfined") else {
        return Ok(None);
    };
    if !facts.loaded.contains(name) {
        let problem = format!("the profile {name:?} is not loaded on this node");
        return Err(InvalidField::invalid(FIELD, problem).into());
    }
    Ok(Some(name.clone()))
}
