//! How something ends badly: in Proxmox's words, and with the status that its API gives them.

use std::collections::BTreeMap;
use std::fmt;

/// A refusal or a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Died {
    /// HTTP status: 500 unless Proxmox says otherwise.
    pub status: u16,
    /// Words, without a line end.
    pub message: String,
    /// What is wrong with which parameter.
    pub errors: BTreeMap<String, String>,
}

/// What may end badly.
pub type Outcome<T = ()> = Result<T, Died>;

impl Died {
    /// With these words.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            status: 500,
            message: message.into(),
            errors: BTreeMap::new(),
        }
    }

    /// Somebody may not do something.
    pub fn forbidden(what: &str) -> Self {
        Self {
            status: 403,
            message: format!("Permission check failed ({what})"),
            errors: BTreeMap::new(),
        }
    }

    /// Parameters are wrong.
    pub fn parameters(errors: BTreeMap<String, String>) -> Self {
        Self {
            status: 400,
            message: "Parameter verification failed.".into(),
            errors,
        }
    }

    /// One parameter is wrong.
    pub fn parameter(name: &str, why: impl Into<String>) -> Self {
        Self::parameters(BTreeMap::from([(name.to_owned(), why.into())]))
    }
}

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (name, why) in &self.errors {
            write!(f, "\n{name}: {why}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Died {}

impl From<String> for Died {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Died {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

/// Perl's way to end because of a file: `<what> '<file>' - <why>`.
pub fn io_died<'a>(
    what: &'a str,
    file: impl fmt::Display + 'a,
) -> impl Fn(std::io::Error) -> Died + 'a {
    move |error| {
        let why = rustix::io::Errno::from_io_error(&error).map_or_else(|| error.to_string(), words);
        Died::new(format!("{what} '{file}' - {why}"))
    }
}

/// An error of the system as Perl spells it.
fn words(errno: rustix::io::Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_perls() {
        let denied = std::io::Error::from_raw_os_error(libc::EACCES);
        let died = io_died("unable to open file", "/etc/pve/x")(denied);
        assert_eq!(
            died.to_string(),
            "unable to open file '/etc/pve/x' - Permission denied"
        );
        let died = Died::parameter("memory", "type check failed");
        assert_eq!(
            died.to_string(),
            "Parameter verification failed.\nmemory: type check failed"
        );
    }
}
