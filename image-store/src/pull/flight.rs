//! One download of a layer, however many pulls want it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::error::PullError;
use super::inflate::{InflateError, LayerContent, Spooled, inflate};
use crate::registry::{Failure, FailureKind, Session, chain};
use crate::spool::Spool;

/// Pieces between network and disk. A piece is at most about 400 KiB (the largest read buffer of
/// hyper), so a download keeps less than 4 MiB.
const PIECES: usize = 8;
/// After so many new bytes, failures are counted from zero again.
const PROGRESS: u64 = 1 << 20;
/// The longest silence before a connection is given up and the download resumed on a new one.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// The download of one blob, shared by all pulls that want it.
///
/// Nobody owns it: whoever holds the lock moves it on, with the credentials of its own pull. When
/// that pull fails or is dropped, the next one takes over where it stopped. When the last
/// pull is gone, so is the flight: the inflating thread sees its channel closed and removes its file.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    arrived: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    done: Option<Arc<Spooled>>,
}

#[derive(Debug)]
struct Running {
    /// None when the whole blob was handed over.
    pieces: Option<mpsc::Sender<Bytes>>,
    received: u64,
    inflating: JoinHandle<Result<Spooled, InflateError>>,
}

/// What a pull brings to a flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boarding<'a> {
    pub(crate) session: &'a Session,
    /// The host that had the manifest.
    pub(crate) host: usize,
    pub(crate) content: &'a LayerContent,
    pub(crate) spool: &'a Arc<Spool>,
    pub(crate) progress_timeout: Duration,
    pub(crate) max_bytes: u64,
}

/// Why a host is not read any further.
enum Stop {
    Host(Failure),
    Pull(PullError),
}

impl Flight {
    /// Bytes of the blob that have arrived.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// The layer, downloaded by this pull or by another.
    ///
    /// Cancel-safe: what has arrived stays for others.
    pub(crate) async fn run(&self, by: Boarding<'_>) -> Result<Arc<Spooled>, PullError> {
        let mut state = self.take_over(&by).await?;
        let mut rounds = by.session.rounds(by.host);
        let mut alive = Instant::now();
        let mut gained_at = self.arrived();
        loop {
            if let Some(spooled) = &state.done {
                return Ok(spooled.clone());
            }
            let Some(host) = rounds.next().await else {
                return Err(rounds.into_error(by.session.subject()));
            };
            match self.read_from(host, &by, &mut state, &mut alive).await {
                Ok(()) => {}
                Err(Stop::Pull(error)) => return Err(error),
                Err(Stop::Host(failure)) => {
                    let given_up = failure.kind == FailureKind::Stalled
                        && alive.elapsed() >= by.progress_timeout;
                    rounds.failed(host, failure);
                    if given_up {
                        return Err(PullError::Timeout {
                            reference: by.session.subject(),
                            detail: format!("{}; {}", self.reached(&by), rounds.detail()),
                        });
                    }
                }
            }
            if self.arrived() >= gained_at + PROGRESS {
                gained_at = self.arrived();
                rounds.progressed();
            }
        }
    }

    /// Waits for the turn of this pull, as long as the one before it gets on.
    async fn take_over(&self, by: &Boarding<'_>) -> Result<MutexGuard<'_, State>, PullError> {
        loop {
            let before = self.arrived();
            if let Ok(state) = timeout(by.progress_timeout, self.state.lock()).await {
                return Ok(state);
            }
            if self.arrived() == before {
                return Err(PullError::Timeout {
                    reference: by.session.subject(),
                    detail: self.reached(by),
                });
            }
        }
    }

    fn reached(&self, by: &Boarding<'_>) -> String {
        format!(
            "no data for {:.1} s after {} of {} bytes of layer {}",
            by.progress_timeout.as_secs_f64(),
            self.arrived(),
            by.content.blob.size,
            by.content.blob.digest
        )
    }

    /// Reads what is missing from one host, and finishes.
    async fn read_from(
        &self,
        host: usize,
        by: &Boarding<'_>,
        state: &mut State,
        alive: &mut Instant,
    ) -> Result<(), Stop> {
        let running = state.running.get_or_insert_with(|| start(by));
        let size = by.content.blob.size;
        if running.received < size {
            let read = self.stream(host, by, running, alive).await;
            match read {
                Ok(()) => {}
                // The inflating thread has ended: it knows best why.
                Err(None) => {}
                Err(Some(failure)) => {
                    if failure.kind == FailureKind::Invalid {
                        self.reset(state);
                    }
                    return Err(Stop::Host(failure));
                }
            }
        }
        self.finish(by, state).await
    }

    /// Hands the missing bytes to the inflating thread. Fails with `None` if that has ended.
    async fn stream(
        &self,
        host: usize,
        by: &Boarding<'_>,
        running: &mut Running,
        alive: &mut Instant,
    ) -> Result<(), Option<Failure>> {
        let size = by.content.blob.size;
        let silence = (by.progress_timeout / 4).min(MAX_SILENCE);
        let patience = |alive: &Instant| {
            let left = by.progress_timeout.saturating_sub(alive.elapsed());
            silence.min(left)
        };
        let stalled = || {
            let detail = format!("no data after {} of {size} bytes", self.arrived());
            Some(Failure::new(FailureKind::Stalled, detail))
        };
        let wait = patience(alive);
        let mut body = by
            .session
            .host(host)
            .blob(&by.content.blob, running.received, wait)
            .await
            .map_err(Some)?;
        while running.received < size {
            let piece = timeout(patience(alive), body.response.chunk())
                .await
                .map_err(|_| stalled())?
                .map_err(|error| Some(Failure::transport(error)))?;
            let Some(mut piece) = piece else {
                return Err(Some(Failure::new(
                    FailureKind::Unavailable,
                    format!("ends after {} of {size} bytes", running.received),
                )));
            };
            *alive = Instant::now();
            let known = body.skip.min(piece.len() as u64);
            body.skip -= known;
            let _ = piece.split_to(usize::try_from(known).unwrap_or(piece.len()));
            let length = piece.len() as u64;
            if running.received + length > size {
                return Err(Some(Failure::invalid(format!(
                    "sends more than the {size} bytes of {}",
                    by.content.blob.digest
                ))));
            }
            if length > 0 {
                let pieces = running.pieces.as_ref().ok_or(None)?;
                // Sent and counted without an await between, so that dropping this pull leaves the
                // count right.
                let slot = pieces.reserve().await.map_err(|_| None)?;
                slot.send(piece);
                running.received += length;
                self.arrived.store(running.received, Ordering::Relaxed);
                *alive = Instant::now();
            }
        }
        tracing::debug!(
            host = by.session.host_name(host),
            layer = %by.content.blob.digest,
            "layer downloaded"
        );
        Ok(())
    }

    /// Waits for the inflating thread and keeps what it made.
    async fn finish(&self, by: &Boarding<'_>, state: &mut State) -> Result<(), Stop> {
        let Some(running) = &mut state.running else {
            return Ok(());
        };
        running.pieces = None;
        // Cancel-safe: the handle stays in the state until its result is taken.
        let result = (&mut running.inflating).await;
        let error = match result {
            Ok(Ok(spooled)) => {
                state.running = None;
                state.done = Some(Arc::new(spooled));
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.reset(state);
                return Err(Stop::Pull(PullError::Closing));
            }
        };
        self.reset(state);
        let detail = || format!("layer {}: {}", by.content.blob.digest, chain(&error));
        Err(match error {
            InflateError::Spool { doing, source } => Stop::Pull(PullError::Spool { doing, source }),
            InflateError::TooLarge { .. } => {
                Stop::Host(Failure::new(FailureKind::Unsupported, detail()))
            }
            // The blob is what its digest says, so no other host has a better one.
            InflateError::DiffId { .. } => Stop::Pull(PullError::Invalid {
                reference: by.session.subject(),
                detail: detail(),
            }),
            InflateError::Decompress(_) | InflateError::BlobDigest(_) | InflateError::Abandoned => {
                Stop::Host(Failure::invalid(detail()))
            }
        })
    }

    fn reset(&self, state: &mut State) {
        state.running = None;
        self.arrived.store(0, Ordering::Relaxed);
    }
}

/// Starts a download: the thread that inflates, and the channel to it.
fn start(by: &Boarding<'_>) -> Running {
    let (sender, receiver) = mpsc::channel(PIECES);
    let content = by.content.clone();
    let spool = by.spool.clone();
    let max_bytes = by.max_bytes;
    Running {
        pieces: Some(sender),
        received: 0,
        // Ends when its channel closes, which dropping the state does.
        inflating: tokio::task::spawn_blocking(move || {
            inflate(&content, receiver, &spool, max_bytes)
        }),
    }
}
