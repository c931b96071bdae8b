//! The AppArmor profiles that are part of the program: `nexcage-default` confines app containers that ask for no other,
//! `lxc-container-nexcage` the LXC containers of pods.
//!
//! They are part of it so that a daemon without a package has them, too. The package puts the same texts to
//! `/etc/apparmor.d`, where apparmor.service loads them before pods start, `aa-remove-unknown` spares them, and administrators may
//! change them: a file is taken if it is there. They are loaded at every start, since an upgrade may have changed them, and whenever
//! they are missing.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use camino::Utf8Path;
use nexcage_command::{Command, CommandError, Program, ProgramError, Stdin};
use nexcage_config::{SANDBOX_PROFILE, Security};

use crate::error::Chain;

/// A profile of ours.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Its name in the kernel.
    pub(crate) name: &'static str,
    text: &'static [u8],
    /// Where packages put it.
    file: &'static str,
}

/// For app containers that ask for none, or for `RuntimeDefault`.
pub(crate) const CONTAINERS: Profile = Profile {
    name: "nexcage-default",
    text: include_bytes!("../apparmor/nexcage-default"),
    file: "/etc/apparmor.d/nexcage-default",
};

/// For LXC containers of pods, unless the configuration names another.
const SANDBOXES: Profile = Profile {
    name: SANDBOX_PROFILE,
    text: include_bytes!("../apparmor/lxc-container-nexcage"),
    file: "/etc/apparmor.d/lxc-container-nexcage",
};

/// Where the kernel lists its profiles.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Compiling takes a tenth of a second, and ten seconds in an emulated machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A profile cannot be loaded, and what needs it cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// There is no apparmor_parser.
    #[error("the AppArmor profile {name} cannot be loaded (security.apparmor: false does without)")]
    Parser {
        name: &'static str,
        source: ProgramError,
    },
    /// apparmor_parser refused.
    #[error("cannot load the AppArmor profile {name}")]
    Load {
        name: &'static str,
        source: CommandError,
    },
    /// apparmor_parser has loaded something else, or nothing: it skips what is in `/etc/apparmor.d/disable`.
    #[error(
        "the AppArmor profile {name} is not there after {file} was loaded; is it disabled, or has it another name in there?"
    )]
    NotThere {
        name: &'static str,
        file: &'static str,
    },
    /// The kernel has AppArmor, and shows none of it.
    #[error(
        "AppArmor is on, but {LOADED} cannot be read; mount securityfs, or set security.apparmor to false"
    )]
    Hidden(#[source] io::Error),
    /// It could not be found out which are loaded.
    #[error("looking for AppArmor profiles was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Loads the profiles, also in the place of older ones. Does nothing where AppArmor is off.
///
/// # Errors
///
/// [`LoadError`], of the first that failed; the other is loaded all the same.
pub(crate) async fn load(security: &Security) -> Result<(), LoadError> {
    match loaded_now(security).await? {
        Some(_) => load_those(|profile| profile.is_needed(security)).await,
        None => Ok(()),
    }
}

/// Loads what is not loaded: somebody may have removed it, or what kept it from being loaded may be over.
///
/// # Errors
///
/// As [`load`].
pub(crate) async fn ensure_all(security: &Security) -> Result<(), LoadError> {
    ensure(security, |profile| profile.is_needed(security)).await
}

/// The same for what a pod's LXC container needs; nothing where the configuration has another profile for it, or none.
///
/// # Errors
///
/// [`LoadError`]: it must not be started unconfined instead, and LXC does not.
pub(crate) async fn ensure_for_sandboxes(security: &Security) -> Result<(), LoadError> {
    match SANDBOXES.is_needed(security) {
        true => ensure(security, |profile| profile.name == SANDBOXES.name).await,
        false => Ok(()),
    }
}

/// The same for an app container that names no profile.
///
/// # Errors
///
/// [`LoadError`]: it must not be started unconfined instead.
pub(crate) async fn ensure_for_containers(security: &Security) -> Result<(), LoadError> {
    ensure(security, |profile| profile.name == CONTAINERS.name).await
}

async fn ensure(security: &Security, wanted: impl Fn(&Profile) -> bool) -> Result<(), LoadError> {
    match loaded_now(security).await? {
        Some(loaded) => {
            load_those(|profile| wanted(profile) && !loaded.contains(profile.name)).await
        }
        None => Ok(()),
    }
}

async fn load_those(wanted: impl Fn(&Profile) -> bool) -> Result<(), LoadError> {
    let load = async |profile: &Profile| match wanted(profile) {
        // Rarely, and it would make every future that leads here a large one.
        true => Box::pin(profile.load()).await,
        false => Ok(()),
    };
    let (containers, sandboxes) = tokio::join!(load(&CONTAINERS), load(&SANDBOXES));
    if let (Err(_), Err(error)) = (&containers, &sandboxes) {
        tracing::warn!(error = %Chain(error), "the other profile of AppArmor cannot be loaded, either");
    }
    containers.and(sandboxes)
}

/// Those that are loaded now: they come and go while the daemon runs. `None` where AppArmor is off. Blocking.
///
/// # Errors
///
/// [`LoadError::Hidden`], as in a container: nobody here can load a profile.
pub(crate) fn loaded(security: &Security) -> Result<Option<BTreeSet<String>>, LoadError> {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !security.apparmor || !enabled.is_ok_and(|text| text.starts_with('Y')) {
        return Ok(None);
    }
    let text = std::fs::read_to_string(LOADED).map_err(LoadError::Hidden)?;
    Ok(Some(names(&text)))
}

async fn loaded_now(security: &Security) -> Result<Option<BTreeSet<String>>, LoadError> {
    let security = security.clone();
    tokio::task::spawn_blocking(move || loaded(&security)).await?
}

/// The first column of the kernel's list, which has one `name (mode)` per line.
fn names(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.rsplit_once(" ("));
    names.map(|(name, _mode)| name.to_owned()).collect()
}

impl Profile {
    fn is_needed(&self, security: &Security) -> bool {
        self.name == CONTAINERS.name || self.name == security.apparmor_profile
    }

    async fn load(&self) -> Result<(), LoadError> {
        let Self { name, file, .. } = *self;
        let parser = Program::find("apparmor_parser", "apparmor")
            .map_err(|source| LoadError::Parser { name, source })?;
        self.command(&parser, Utf8Path::new(file).is_file())
            .run()
            .await
            .map_err(|source| LoadError::Load { name, source })?;
        let text = tokio::task::spawn_blocking(|| std::fs::read_to_string(LOADED)).await?;
        if !names(&text.map_err(LoadError::Hidden)?).contains(name) {
            return Err(LoadError::NotThere { name, file });
        }
        tracing::info!(profile = name, "AppArmor profile loaded");
        Ok(())
    }

    /// `--skip-cache`: the cache is apparmor.service's, which knows profiles by their files.
    fn command(&self, parser: &Program, file: bool) -> Command {
        let command = Command::new(parser, DEADLINE).args(["--replace", "--skip-cache"]);
        if file {
            command.arg(self.file)
        } else {
            command.stdin(Stdin::Bytes(self.text.to_vec()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(profile: &Profile) -> &'static str {
        std::str::from_utf8(profile.text).unwrap()
    }

    #[test]
    fn an_administrators_file_goes_first() {
        let parser = Program::at("/bin/cat").unwrap();
        let shared = "/bin/cat --replace --skip-cache";
        for profile in [CONTAINERS, SANDBOXES] {
            assert_eq!(profile.command(&parser, false).line(), shared);
            let file = profile.file;
            assert_eq!(
                profile.command(&parser, true).line(),
                format!("{shared} {file}")
            );
        }
    }

    #[test]
    fn texts_are_of_their_names_and_let_administrators_add_to_them() {
        for profile in [CONTAINERS, SANDBOXES] {
            let (text, name) = (text(&profile), profile.name);
            assert!(text.contains(&format!("\nprofile {name} flags=")));
            assert!(text.contains(&format!("\n  include if exists <local/{name}>\n")));
            assert_eq!(profile.file, format!("/etc/apparmor.d/{name}"));
        }
    }

    #[test]
    fn containers_may_signal_each_other() {
        for peer in ["nexcage-default", "\"crun//&nexcage-default\""] {
            let rule = format!("signal (send,receive) peer={peer},");
            assert!(text(&CONTAINERS).contains(&rule));
        }
    }

    /// The profile that LXC has for lxc-start lets it change to no other.
    #[test]
    fn lxc_may_change_to_the_profile_of_sandboxes() {
        assert!(SANDBOXES.name.starts_with("lxc-"));
    }

    #[test]
    fn the_profile_of_sandboxes_is_needed_by_those_that_have_it() {
        let configured = |profile: &str| Security {
            apparmor_profile: profile.into(),
            ..Security::default()
        };
        for (security, needed) in [
            (Security::default(), true),
            (configured("generated"), false),
        ] {
            assert_eq!(SANDBOXES.is_needed(&security), needed);
            assert!(CONTAINERS.is_needed(&security));
        }
    }

    #[test]
    fn names_may_have_spaces_and_brackets() {
        let text = "/usr/bin/man (enforce)\nlibreoffice (draft) x (complain)\ngarbage\n";
        assert_eq!(
            names(text).into_iter().collect::<Vec<_>>(),
            ["/usr/bin/man", "libreoffice (draft) x"].map(String::from)
        );
    }
}
