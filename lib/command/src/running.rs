//! A call that has begun.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::child::Child;
use crate::{CommandError, Output};

/// Our ends of a program's standard streams.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    /// With what is to be written.
    pub(crate) stdin: Option<(Sender, Vec<u8>)>,
    pub(crate) stdout: Option<Receiver>,
    pub(crate) stderr: Option<Receiver>,
}

/// A program that was started. Dropping it kills the program and its process group.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) pipes: Pipes,
    pub(crate) line: String,
    /// Bytes kept of each output stream.
    pub(crate) limit: usize,
    pub(crate) linger: Option<Duration>,
    pub(crate) deadline: Duration,
}

impl Running {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for it; a status other than 0 is an error.
    pub(crate) async fn succeed(self) -> Result<Output, CommandError> {
        let command = self.line.clone();
        let output = self.end().await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(CommandError::Failed {
            command,
            status: output.status,
            stdout: output.stdout_text(),
            stderr: output.stderr_text(),
        })
    }

    /// Waits for it, feeding its input and reading its output.
    pub(crate) async fn end(self) -> Result<Output, CommandError> {
        let Self {
            mut child,
            pipes,
            line: command,
            limit,
            linger,
            deadline,
        } = self;
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();

        let streams = async {
            let feed = async {
                if let Some((mut stdin, input)) = pipes.stdin {
                    // A program may end without reading all of it; its status tells.
                    let _ = stdin.write_all(&input).await;
                }
                Ok(())
            };
            tokio::try_join!(
                feed,
                drain(pipes.stdout, limit, &mut stdout),
                drain(pipes.stderr, limit, &mut stderr)
            )
            .map(|_| ())
        };
        let ended = tokio::time::timeout(deadline, wait(&mut child, streams, linger)).await;
        match ended {
            Ok(Ok(status)) => Ok(Output {
                status,
                stdout,
                stderr,
            }),
            Ok(Err(source)) => Err(CommandError::Io { command, source }),
            Err(_) => {
                child.kill();
                let _ = child.wait().await;
                Err(CommandError::Deadline {
                    command,
                    deadline,
                    stderr: String::from_utf8_lossy(&stderr).into_owned(),
                })
            }
        }
    }
}

/// Waits for the child's end and for its streams, for these at most `linger` longer.
async fn wait(
    child: &mut Child,
    streams: impl Future<Output = std::io::Result<()>>,
    linger: Option<Duration>,
) -> std::io::Result<ExitStatus> {
    let mut streams = std::pin::pin!(streams);
    let Some(linger) = linger else {
        streams.await?;
        return child.wait().await;
    };
    tokio::select! {
        // Cancel-safe: only borrowed, and awaited again in the other arm.
        done = &mut streams => {
            done?;
            child.wait().await
        }
        // Cancel-safe: `Child::wait` is documented so.
        status = child.wait() => {
            if let Ok(done) = tokio::time::timeout(linger, streams).await {
                done?;
            }
            status
        }
    }
}

/// Reads a stream to its end, keeping at most `limit` bytes.
async fn drain<R: AsyncRead + Unpin>(
    from: Option<R>,
    limit: usize,
    to: &mut Vec<u8>,
) -> std::io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    (&mut from).take(limit as u64).read_to_end(to).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(())
}
