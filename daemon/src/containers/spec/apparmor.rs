//! Which AppArmor profile confines a container.

use std::collections::BTreeSet;

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

/// Names of the loaded profiles, from the text of `/sys/kernel/security/apparmor/profiles`, which has one
/// `name (mode)` per line.
pub(crate) fn loaded_profiles(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.rsplit_once(" ("));
    names.map(|(name, _mode)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_spaces_and_brackets() {
        let text = "/usr/bin/man (enforce)\nlibreoffice (draft) x (complain)\ngarbage\n";
        let names = loaded_profiles(text);
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            ["/usr/bin/man", "libreoffice (draft) x"]
        );
    }
}
