//! Why a subcommand failed, and how that is told.

use std::process::ExitCode;

use camino::Utf8PathBuf;

use crate::error::Chain;

/// A failed subcommand. What it shows, with its sources, stands behind `nexcage: `.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// Nobody listens there.
    #[error(
        "no daemon answers at {socket}: start it with `systemctl start nexcage` or `nexcage daemon`, \
         or name the socket with --socket or NEXCAGE_SOCKET"
    )]
    NoDaemon { socket: Utf8PathBuf },
    /// Somebody may listen there, but not to us.
    #[error("cannot connect to {socket}")]
    Connect {
        socket: Utf8PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon refused, or failed.
    #[error("{doing}")]
    Rpc {
        doing: String,
        #[source]
        source: Refusal,
    },
    /// Nothing is called like this.
    #[error("there is no {kind} with the name or id {name:?}")]
    NotFound { kind: &'static str, name: String },
    /// Several things are.
    #[error("{name:?} is ambiguous, it may be: {}", candidates.join(", "))]
    Ambiguous {
        name: String,
        candidates: Vec<String>,
    },
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// What was asked for cannot be done now.
    #[error("{0}")]
    State(String),
    /// A system call failed.
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: std::io::Error,
    },
    /// Whoever read our output has gone.
    #[error("standard output is closed")]
    OutputClosed,
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] nexcage_config::ConfigError),
    /// The daemon could not start.
    #[error("{0:#}")]
    Daemon(anyhow::Error),
    /// Already told, thing by thing.
    #[error("failed")]
    Told,
}

/// A gRPC status, as people read it.
#[derive(Debug, thiserror::Error)]
#[error("{} ({code:?})", if message.is_empty() { "no reason given" } else { message })]
pub(super) struct Refusal {
    /// Why the call failed, for those who decide by it.
    pub(super) code: tonic::Code,
    message: String,
}

impl CliError {
    /// For `map_err`: `doing` failed.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            doing: doing.into(),
            source,
        }
    }

    /// For `map_err`: the daemon was asked to do `doing` and did not.
    pub(super) fn rpc(doing: impl Into<String>) -> impl FnOnce(tonic::Status) -> Self {
        move |status| {
            let source = Refusal {
                code: status.code(),
                message: status.message().to_owned(),
            };
            Self::Rpc {
                doing: doing.into(),
                source,
            }
        }
    }

    /// Whether the daemon answered that there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        match self {
            Self::Rpc { source, .. } => source.code == tonic::Code::NotFound,
            Self::NotFound { .. } => true,
            _ => false,
        }
    }

    /// Tells it on standard error; what the program exits with.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            // As with `head`: they have what they wanted.
            Self::OutputClosed => return ExitCode::SUCCESS,
            Self::Told => {}
            _ => eprintln!("nexcage: {}", Chain(self)),
        }
        match self {
            Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_message_and_code_once() {
        let status = tonic::Status::not_found("image \"x\" does not exist");
        let error = CliError::rpc("cannot pull x")(status);
        let text = "cannot pull x: image \"x\" does not exist (NotFound)";
        assert_eq!(Chain(&error).to_string(), text);
        assert!(error.is_not_found());
    }
}
