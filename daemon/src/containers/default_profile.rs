//! The AppArmor profile `nexcage-default`, which confines containers that ask for no other.
//!
//! The profile is part of the program, so that a daemon without a package has it, too. The package puts the same text to
//! `/etc/apparmor.d`, where apparmor.service loads it before pods start, `aa-remove-unknown` spares it, and administrators may
//! change it: the file is taken if it is there. It is loaded at every start, since an upgrade may have changed it, and whenever it is
//! missing.

use std::time::Duration;

use camino::Utf8Path;
use nexcage_command::{Command, CommandError, Program, ProgramError, Stdin};
use nexcage_config::Security;

use super::config::{AppArmorProfile, ContainerSpec};
use super::facts::apparmor;
use crate::error::OpError;

/// The profile's name.
pub(crate) const NAME: &str = "nexcage-default";

const TEXT: &[u8] = include_bytes!("../../apparmor/nexcage-default");

/// Where packages put it.
const FILE: &str = "/etc/apparmor.d/nexcage-default";

/// Compiling takes a tenth of a second, and ten seconds in an emulated machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The profile cannot be loaded, and containers that need it cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// There is no apparmor_parser.
    #[error("the AppArmor profile {NAME} cannot be loaded (security.apparmor: false does without)")]
    Parser(#[from] ProgramError),
    /// apparmor_parser refused.
    #[error("cannot load the AppArmor profile {NAME}")]
    Load(#[from] CommandError),
    /// It could not be found out whether it is loaded.
    #[error("looking for the AppArmor profile {NAME} was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Loads the profile, also in the place of an older one. Does nothing where AppArmor is off.
///
/// # Errors
///
/// [`LoadError`].
pub(crate) async fn load(security: &Security) -> Result<(), LoadError> {
    match is_loaded(security).await? {
        Some(_) => parse().await,
        None => Ok(()),
    }
}

/// Loads the profile if it is not loaded: somebody may have removed it, or what kept it from being loaded may be over.
///
/// # Errors
///
/// [`LoadError`].
pub(crate) async fn ensure_loaded(security: &Security) -> Result<(), LoadError> {
    match is_loaded(security).await? {
        Some(false) => parse().await,
        Some(true) | None => Ok(()),
    }
}

/// The same for a container that is to have the profile; nothing for any other.
///
/// # Errors
///
/// The container must not be started unconfined instead.
pub(super) async fn ensure_for(security: &Security, spec: &ContainerSpec) -> Result<(), OpError> {
    match spec.security.apparmor {
        AppArmorProfile::Unset | AppArmorProfile::RuntimeDefault if !spec.security.privileged => {
            ensure_loaded(security)
                .await
                .map_err(OpError::step("the container cannot be confined"))
        }
        _ => Ok(()),
    }
}

/// `None` where AppArmor is off.
async fn is_loaded(security: &Security) -> Result<Option<bool>, LoadError> {
    let security = security.clone();
    let facts = tokio::task::spawn_blocking(move || apparmor(&security)).await?;
    Ok(facts.map(|facts| facts.loaded.contains(NAME)))
}

async fn parse() -> Result<(), LoadError> {
    let parser = Program::find("apparmor_parser", "apparmor")?;
    command(&parser, Utf8Path::new(FILE).is_file())
        .run()
        .await?;
    tracing::info!(profile = NAME, "AppArmor profile loaded");
    Ok(())
}

/// `--skip-cache`: the cache is apparmor.service's, which knows profiles by their files.
fn command(parser: &Program, file: bool) -> Command {
    let command = Command::new(parser, DEADLINE).args(["--replace", "--skip-cache"]);
    if file {
        command.arg(FILE)
    } else {
        command.stdin(Stdin::Bytes(TEXT.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrators_file_goes_first() {
        let parser = Program::at("/bin/cat").unwrap();
        let shared = "/bin/cat --replace --skip-cache";
        assert_eq!(command(&parser, false).line(), shared);
        assert_eq!(command(&parser, true).line(), format!("{shared} {FILE}"));
    }

    #[test]
    fn the_profile_has_its_name_and_lets_its_containers_signal_each_other() {
        let text = std::str::from_utf8(TEXT).unwrap();
        assert!(text.contains(&format!("\nprofile {NAME} flags=")));
        for peer in [NAME, &format!("\"crun//&{NAME}\"")] {
            assert!(text.contains(&format!("signal (send,receive) peer={peer},")));
        }
    }
}
