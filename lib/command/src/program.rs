//! Finding the programs that nexcage drives.

use std::fmt;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Access, access};

/// Where Debian and Proxmox install programs. `PATH` is never asked: what runs as root
/// must not depend on the caller's environment.
const DIRECTORIES: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// An executable file, by absolute path, found and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: Utf8PathBuf,
}

/// A program is missing or cannot be executed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// No such file in any of the fixed directories.
    #[error("{name} is not installed (looked in {looked}); on Debian: apt install {package}")]
    NotFound {
        /// The program.
        name: String,
        /// The directories that were searched.
        looked: String,
        /// The Debian package that has it.
        package: String,
    },
    /// The given path is not an executable file.
    #[error("{path} is not an executable file")]
    NotExecutable {
        /// The path.
        path: Utf8PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

impl Program {
    /// Looks for `name` in the system's program directories. `package` is the Debian
    /// package that has it, for the error message.
    ///
    /// # Errors
    ///
    /// [`ProgramError::NotFound`].
    pub fn find(name: &str, package: &str) -> Result<Self, ProgramError> {
        DIRECTORIES
            .iter()
            .map(|dir| Utf8Path::new(dir).join(name))
            .find(|path| path.is_file() && access(path.as_std_path(), Access::EXEC_OK).is_ok())
            .map(|path| Self { path })
            .ok_or_else(|| ProgramError::NotFound {
                name: name.into(),
                looked: DIRECTORIES.join(", "),
                package: package.into(),
            })
    }

    /// Takes the program at an absolute path.
    ///
    /// # Errors
    ///
    /// [`ProgramError::NotExecutable`], also for a relative path or a directory.
    pub fn at(path: impl Into<Utf8PathBuf>) -> Result<Self, ProgramError> {
        let path = path.into();
        let fail = |source| ProgramError::NotExecutable {
            path: path.clone(),
            source,
        };
        if !path.is_absolute() || !path.is_file() {
            return Err(fail(std::io::ErrorKind::NotFound.into()));
        }
        access(path.as_std_path(), Access::EXEC_OK).map_err(|e| fail(e.into()))?;
        Ok(Self { path })
    }

    /// The running program itself: nexcage calls hidden subcommands of its own.
    ///
    /// # Errors
    ///
    /// [`ProgramError::NotExecutable`] if `/proc/self/exe` cannot be read.
    pub fn myself() -> Result<Self, ProgramError> {
        let fail = |source| ProgramError::NotExecutable {
            path: "/proc/self/exe".into(),
            source,
        };
        let path = std::env::current_exe().map_err(fail)?;
        let path = Utf8PathBuf::try_from(path).map_err(|e| fail(e.into_io_error()))?;
        Ok(Self { path })
    }

    /// The absolute path.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_program_by_name() {
        assert!(
            Program::find("cat", "coreutils")
                .unwrap()
                .path()
                .is_absolute()
        );
    }

    #[test]
    fn names_the_package_of_a_missing_one() {
        let e = Program::find("no-such-program", "some-package").unwrap_err();
        assert!(e.to_string().contains("apt install some-package"), "{e}");
    }

    #[test]
    fn refuses_what_cannot_run() {
        assert!(Program::at("/etc/passwd").is_err());
        assert!(Program::at("/usr").is_err());
        assert!(Program::at("bin/true").is_err());
    }
}
