//! Asking for what makes no sense, and judging the answers.

use anyhow::ensure;
use nexcage_tests::Machine;
use nexcage_tests::client::Client;
use nexcage_tests::leak::Baseline;
use tonic::{Code, Response, Status};

/// Collects what was answered in a wrong way, so that one run shows all of it.
#[derive(Default)]
pub(crate) struct Findings(pub(crate) Vec<String>);

impl Findings {
    /// Expects one of `codes`, and a message that has `word` in it.
    pub(crate) fn refused<T>(
        &mut self,
        what: &str,
        answer: Result<Response<T>, Status>,
        codes: &[Code],
        word: &str,
    ) {
        match answer {
            Ok(_) => self.0.push(format!("{what}: accepted")),
            Err(status) if !codes.contains(&status.code()) => {
                let (code, message) = (status.code(), status.message());
                self.0
                    .push(format!("{what}: {code:?} instead of {codes:?}: {message}"));
            }
            Err(status) if !status.message().contains(word) => {
                self.0.push(format!(
                    "{what}: does not name `{word}`: {}",
                    status.message()
                ));
            }
            Err(_) => {}
        }
    }

    pub(crate) fn invalid<T>(
        &mut self,
        what: &str,
        answer: Result<Response<T>, Status>,
        word: &str,
    ) {
        self.refused(what, answer, &[Code::InvalidArgument], word);
    }

    /// For fields that cannot be honoured on every machine or in every version.
    pub(crate) fn unsupported<T>(
        &mut self,
        what: &str,
        answer: Result<Response<T>, Status>,
        word: &str,
    ) {
        let codes = [
            Code::InvalidArgument,
            Code::Unimplemented,
            Code::FailedPrecondition,
        ];
        self.refused(what, answer, &codes, word);
    }

    pub(crate) fn accepted<T>(&mut self, what: &str, answer: Result<Response<T>, Status>) {
        if let Err(status) = answer {
            self.0
                .push(format!("{what}: {:?}: {}", status.code(), status.message()));
        }
    }

    pub(crate) fn none(self) -> anyhow::Result<()> {
        ensure!(
            self.0.is_empty(),
            "{} wrong answers:\n  {}",
            self.0.len(),
            self.0.join("\n  ")
        );
        Ok(())
    }
}

/// Runs a test with a daemon and a raw client on a runtime of its own.
pub(crate) fn with_client(test: impl AsyncFnOnce(&Machine, Client) -> anyhow::Result<()>) {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async { test(machine, Client::connect(machine).await?).await })?;
        machine.crictl().remove_everything()?;
        baseline.check(machine)?;
        daemon.terminate()
    });
}

/// A change that spoils a request, and the word that the answer has to name.
pub(crate) type Spoiled<T> = (&'static str, fn(&mut T), &'static str);
