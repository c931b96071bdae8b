//! What this node's Proxmox can do, by the version of its package pve-container: the only place that compares versions.

use std::time::Duration;

use nexcage_command::{Command, CommandError, Program};

const PACKAGE: &str = "pve-container";

/// dpkg-query(1).
const DATABASE: &str = "DPKG_ADMINDIR";

const DEADLINE: Duration = Duration::from_secs(10);

/// That of Proxmox VE 8.
const OLDEST: Version = Version(5, 0, 0);

/// First with `idmap=` on `rootfs` and mount points.
const IDMAP: Version = Version(6, 1, 6);

/// From the first of these to before the second one, containers of type `unmanaged` could not be started.
const UNMANAGED_BROKEN: (Version, Version) = (Version(6, 0, 19), Version(6, 1, 1));

/// Proxmox's containers cannot be used, or it is not known whether.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeatureError {
    /// This is no Proxmox VE node.
    #[error("the package {PACKAGE} is not installed; pods as Proxmox containers need Proxmox VE")]
    NotInstalled,
    /// This Proxmox is too old.
    #[error("{PACKAGE} {version} is too old; {OLDEST} or newer is needed, as in Proxmox VE 8")]
    TooOld {
        /// What is installed.
        version: Version,
    },
    /// dpkg's answer is not understood.
    #[error("dpkg-query says {answer:?} of {PACKAGE}")]
    Unreadable {
        /// What it says.
        answer: String,
    },
    /// dpkg could not be asked.
    #[error("dpkg cannot be asked for {PACKAGE}")]
    Query(#[source] CommandError),
}

/// Major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What depends on the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `idmap=passthrough`: files of a root filesystem belong inside to whom they belong to on disk.
    pub idmap: bool,
    /// Proxmox can start containers of type `unmanaged`.
    pub starts_unmanaged: bool,
}

impl Features {
    /// Those of the installed package.
    ///
    /// # Errors
    ///
    /// A [`FeatureError`] of any kind.
    pub async fn detect(dpkg_query: &Program) -> Result<Self, FeatureError> {
        let mut command = Command::new(dpkg_query, DEADLINE)
            .args(["-W", "--showformat", "${db:Status-Status} ${Version}"])
            .arg(PACKAGE);
        // Where dpkg's database is elsewhere, all of dpkg's programs are told so by this.
        if let Some(directory) = std::env::var_os(DATABASE) {
            command = command.env(DATABASE, directory);
        }
        let output = command
            .run_any_status()
            .await
            .map_err(FeatureError::Query)?;
        // It fails for packages that it never heard of.
        if !output.status.success() {
            return Err(FeatureError::NotInstalled);
        }
        Self::read(&output.stdout_text())
    }

    /// From `<status> <version>`.
    fn read(answer: &str) -> Result<Self, FeatureError> {
        let unreadable = || FeatureError::Unreadable {
            answer: answer.to_owned(),
        };
        let (status, version) = answer.trim().split_once(' ').ok_or_else(unreadable)?;
        if status != "installed" {
            return Err(FeatureError::NotInstalled);
        }
        let version = parse(version).ok_or_else(unreadable)?;
        if version < OLDEST {
            return Err(FeatureError::TooOld { version });
        }
        let (broken, mended) = UNMANAGED_BROKEN;
        Ok(Self {
            idmap: version >= IDMAP,
            starts_unmanaged: version < broken || version >= mended,
        })
    }
}

/// `6.1.10`, `5.3.5`, `1:6.1.2-1~bpo12+1`: deb-version(7).
fn parse(text: &str) -> Option<Version> {
    let text = text.split_once(':').map_or(text, |(_epoch, rest)| rest);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let mut numbers = text[..end.unwrap_or(text.len())].split('.');
    let major = numbers.next()?.parse().ok()?;
    let mut next = || match numbers.next() {
        Some(number) => number.parse().ok(),
        None => Some(0),
    };
    Some(Version(major, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_packages() {
        for (text, version) in [
            ("6.1.10", Version(6, 1, 10)),
            ("5.3-1", Version(5, 3, 0)),
            ("1:6.1.2-1~bpo12+1", Version(6, 1, 2)),
            ("6.1.6~rc1", Version(6, 1, 6)),
            ("7", Version(7, 0, 0)),
        ] {
            assert_eq!(parse(text), Some(version), "{text}");
        }
        for bad in ["", "x", "6..1", ".1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn features_by_version() {
        let features = |version: &str| Features::read(&format!("installed {version}\n")).unwrap();
        for (version, idmap, starts_unmanaged) in [
            ("5.3.5", false, true),
            ("6.0.18", false, true),
            ("6.0.19", false, false),
            ("6.1.0", false, false),
            ("6.1.1", false, true),
            ("6.1.5", false, true),
            ("6.1.6", true, true),
            ("6.1.10", true, true),
            ("7.0.0", true, true),
        ] {
            let expected = Features {
                idmap,
                starts_unmanaged,
            };
            assert_eq!(features(version), expected, "{version}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let error = |answer: &str| Features::read(answer).unwrap_err().to_string();
        assert!(error("config-files 6.1.0").contains("not installed"));
        assert!(error("installed 4.4.6").contains("pve-container 4.4.6 is too old; 5.0.0"));
        assert!(error("").contains("says \"\""));
        assert!(error("installed ?").contains("installed ?"));
    }

    #[tokio::test]
    async fn a_machine_without_proxmox_is_told_from_one_with() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = camino::Utf8PathBuf::try_from(dir.path().join("dpkg-query")).unwrap();
        let answer = |script: &str| {
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            Program::at(&path).unwrap()
        };
        let there = answer("test \"$4\" = pve-container && echo installed 6.1.10");
        assert!(Features::detect(&there).await.unwrap().idmap);
        let none = Features::detect(&answer("exit 1")).await;
        assert!(matches!(none, Err(FeatureError::NotInstalled)));
    }
}
