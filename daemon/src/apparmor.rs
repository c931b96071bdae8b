//! The AppArmor profiles that are part of the program: `nexcage-default` confines app containers that ask for no other,
//! `lxc-container-nexcage` the LXC containers of pods.
//!
//! They are part of it so that a daemon without a package has them, too. The package puts the same texts to
//! `/etc/apparmor.d`, where apparmor.service loads them before pods start, `aa-remove-unknown` spares them, and administrators may
//! change them: a file is taken if it is there. They are loaded at every start, since an upgrade may have changed them, and whenever
//! they are missing.

use std::collections::BTreeSet;
use std::time::Duration;

use camino::Utf8Path;
use nexcage_command::{Command, CommandError, Program, ProgramError, Stdin};
use nexcage_config::{SANDBOX_PROFILE, Security};

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
    if loaded_now(security).await?.is_none() {
        return Ok(());
    }
    let mut done = Ok(());
    for profile in needed(security) {
        done = done.and(profile.load().await);
    }
    done
}

/// Loads what is not loaded: somebody may have removed it, or what kept it from being loaded may be over.
///
/// # Errors
///
/// [`LoadError`].
pub(crate) async fn ensure_all(security: &Security) -> Result<(), LoadError> {
    for profile in needed(security) {
        ensure(security, profile).await?;
    }
    Ok(())
}

/// The same for what a pod's LXC container needs.
///
/// # Errors
///
/// [`LoadError`]: it must not be started unconfined instead, and LXC does not.
pub(crate) async fn ensure_for_sandboxes(security: &Security) -> Result<(), LoadError> {
    match security.apparmor_profile == SANDBOXES.name {
        true => ensure(security, &SANDBOXES).await,
        false => Ok(()),
    }
}

/// The same for one profile.
///
/// # Errors
///
/// [`LoadError`].
pub(crate) async fn ensure(security: &Security, profile: &Profile) -> Result<(), LoadError> {
    match loaded_now(security).await? {
        Some(loaded) if !loaded.contains(profile.name) => profile.load().await,
        _ => Ok(()),
    }
}

/// Those that are loaded now: they come and go while the daemon runs. `None` where AppArmor is off. Blocking.
pub(crate) fn loaded(security: &Security) -> Option<BTreeSet<String>> {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !security.apparmor || !enabled.is_ok_and(|text| text.starts_with('Y')) {
        return None;
    }
    // In a container the kernel has AppArmor, and nobody here can load a profile.
    let text = std::fs::read_to_string(LOADED).ok()?;
    Some(names(&text))
}

async fn loaded_now(security: &Security) -> Result<Option<BTreeSet<String>>, LoadError> {
    let security = security.clone();
    Ok(tokio::task::spawn_blocking(move || loaded(&security)).await?)
}

fn needed(security: &Security) -> impl Iterator<Item = &'static Profile> {
    let sandboxes = security.apparmor_profile == SANDBOXES.name;
    std::iter::once(&CONTAINERS).chain(sandboxes.then_some(&SANDBOXES))
}

/// The first column of the kernel's list, which has one `name (mode)` per line.
fn names(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.rsplit_once(" ("));
    names.map(|(name, _mode)| name.to_owned()).collect()
}

impl Profile {
    async fn load(&self) -> Result<(), LoadError> {
        let name = self.name;
        let parser = Program::find("apparmor_parser", "apparmor")
            .map_err(|source| LoadError::Parser { name, source })?;
        self.command(&parser, Utf8Path::new(self.file).is_file())
            .run()
            .await
            .map_err(|source| LoadError::Load { name, source })?;
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
        let needed = |profile: &str| {
            let security = Security {
                apparmor_profile: profile.into(),
                ..Security::default()
            };
            needed(&security).map(|p| p.name).collect::<Vec<_>>()
        };
        let both = ["nexcage-default", "lxc-container-nexcage"];
        assert_eq!(needed(&Security::default().apparmor_profile), both);
        assert_eq!(needed("generated"), both[..1]);
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
