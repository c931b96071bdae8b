//! What can go wrong with a call, with everything needed to understand it.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

/// Longest piece of each output stream that an error message shows, in bytes.
const SHOWN: usize = 2048;

/// A call of a program failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The program could not be started.
    #[error("cannot start `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Talking to the running program failed.
    #[error("lost contact with `{command}`")]
    Io {
        /// The command line.
        command: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// It ended with an error of its own.
    #[error(
        "`{command}` failed ({status}){}{}",
        shown("", stderr),
        shown("stdout", stdout)
    )]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Standard output.
        stdout: String,
        /// Standard error.
        stderr: String,
    },
    /// It was killed because it did not end in time.
    #[error("`{command}` did not end within {} s and was killed{}", deadline.as_secs_f32(), shown("", stderr))]
    Deadline {
        /// The command line.
        command: String,
        /// The time it was given.
        deadline: Duration,
        /// Standard error up to then.
        stderr: String,
    },
}

impl CommandError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            // The machine was busy.
            Self::Deadline { .. } | Self::Io { .. } => true,
            // Only out of memory or processes passes by itself.
            Self::Start { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::OutOfMemory
            ),
            // The program meant it.
            Self::Failed { .. } => false,
        }
    }

    /// What the program wrote to standard error, if it ran.
    pub fn stderr(&self) -> Option<&str> {
        match self {
            Self::Failed { stderr, .. } | Self::Deadline { stderr, .. } => Some(stderr),
            Self::Start { .. } | Self::Io { .. } => None,
        }
    }
}

/// `: text` or `; label: text`, cut to [`SHOWN`] bytes, or nothing for no text.
fn shown(label: &'static str, text: &str) -> impl fmt::Display {
    struct Shown(&'static str, String);
    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match (self.1.is_empty(), self.0) {
                (true, _) => Ok(()),
                (false, "") => write!(f, ": {}", self.1),
                (false, label) => write!(f, "; {label}: {}", self.1),
            }
        }
    }
    let text = text.trim();
    let mut end = text.len().min(SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < text.len() { " ..." } else { "" };
    Shown(label, format!("{}{cut}", &text[..end]))
}
