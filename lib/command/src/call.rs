//! One call of a program.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use camino::Utf8PathBuf;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{CommandError, Program, fds};

/// Output kept of each stream, in bytes. Programs that nexcage drives answer in
/// kilobytes; one that does not must not take the daemon's memory with it.
const OUTPUT_LIMIT: u64 = 16 << 20;

/// What the program reads as standard input.
#[derive(Debug, Default)]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// These bytes, then end of file.
    Bytes(Vec<u8>),
}

/// A call under construction. See the crate's documentation for what every call has.
#[derive(Debug)]
pub struct Command {
    program: Utf8PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: Option<Utf8PathBuf>,
    stdin: Stdin,
    files: Vec<(OwnedFd, RawFd)>,
    deadline: Duration,
}

/// How a call ended, and what it wrote.
#[derive(Debug)]
pub struct Output {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output, at most 16 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, at most 16 MiB.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text; what is not UTF-8 is replaced.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text; what is not UTF-8 is replaced.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl Command {
    /// A call of `program` that is killed after `deadline`.
    pub fn new(program: &Program, deadline: Duration) -> Self {
        Self {
            program: program.path().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            directory: None,
            stdin: Stdin::Null,
            files: Vec::new(),
            deadline,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = impl Into<OsString>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs in `directory` instead of `/`.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<Utf8PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Gives standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Lets the program have `file` as file descriptor `number` (3 or more).
    #[must_use]
    pub fn file(mut self, file: OwnedFd, number: RawFd) -> Self {
        self.files.push((file, number));
        self
    }

    /// The command line, for messages.
    pub fn line(&self) -> String {
        let mut line = self.program.to_string();
        for arg in &self.args {
            line.push(' ');
            line.push_str(&arg.to_string_lossy());
        }
        line
    }

    /// Runs the program to its end.
    ///
    /// Dropping the future kills the program and its process group.
    ///
    /// # Errors
    ///
    /// A [`CommandError`] of any kind; a status other than 0 is [`CommandError::Failed`].
    pub async fn run(self) -> Result<Output, CommandError> {
        let line = self.line();
        let output = self.run_any_status().await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(CommandError::Failed {
            command: line,
            status: output.status,
            stdout: output.stdout_text(),
            stderr: output.stderr_text(),
        })
    }

    /// As [`run`](Self::run), but any exit status is an answer.
    ///
    /// # Errors
    ///
    /// All of [`CommandError`] but `Failed`.
    pub async fn run_any_status(self) -> Result<Output, CommandError> {
        let command = self.line();
        let deadline = self.deadline;
        tracing::trace!(%command, "start");

        let (mut child, input) = self.spawn(&command)?;
        let group = Group::of(&child);
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let stdin = child.stdin.take();

        let talk = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A program may end without reading all of it; its status tells.
                    let _ = stdin.write_all(&input).await;
                }
                Ok(())
            };
            tokio::try_join!(feed, drain(out, &mut stdout), drain(err, &mut stderr))?;
            child.wait().await
        };
        let ended = tokio::time::timeout(deadline, talk).await;
        match ended {
            Ok(Ok(status)) => {
                group.disarm();
                Ok(Output {
                    status,
                    stdout,
                    stderr,
                })
            }
            Ok(Err(source)) => Err(CommandError::Io { command, source }),
            Err(_) => {
                drop(group);
                // Reaped here so that no zombie waits for the runtime's orphan queue.
                let _ = child.wait().await;
                Err(CommandError::Deadline {
                    command,
                    deadline,
                    stderr: String::from_utf8_lossy(&stderr).into_owned(),
                })
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "this is the place that may")]
    fn spawn(self, line: &str) -> Result<(tokio::process::Child, Vec<u8>), CommandError> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LC_ALL", "C.UTF-8")
            .envs(self.env)
            .current_dir(self.directory.as_deref().unwrap_or("/".into()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let input = match self.stdin {
            Stdin::Null => {
                command.stdin(Stdio::null());
                Vec::new()
            }
            Stdin::Bytes(bytes) => {
                command.stdin(Stdio::piped());
                bytes
            }
        };
        fds::inherit(&mut command, self.files);
        let child = command.spawn().map_err(|source| CommandError::Start {
            command: line.to_owned(),
            source,
        })?;
        Ok((child, input))
    }
}

/// Reads a stream to its end, keeping at most [`OUTPUT_LIMIT`] bytes.
async fn drain<R: AsyncRead + Unpin>(from: Option<R>, to: &mut Vec<u8>) -> std::io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    (&mut from).take(OUTPUT_LIMIT).read_to_end(to).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Kills the whole process group when dropped while armed.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self(pid.and_then(Pid::from_raw))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn program(name: &str) -> Program {
        Program::find(name, "coreutils").unwrap()
    }

    #[tokio::test]
    async fn output_and_input_pass_through() {
        let out = Command::new(&program("cat"), SOON)
            .stdin(Stdin::Bytes(b"hello".to_vec()))
            .run()
            .await
            .unwrap();
        assert_eq!(out.stdout, b"hello");
    }

    #[tokio::test]
    async fn a_failure_tells_everything() {
        let e = Command::new(&program("ls"), SOON)
            .arg("/no/such/file")
            .run()
            .await
            .unwrap_err();
        let text = e.to_string();
        assert!(text.contains("ls /no/such/file"), "{text}");
        assert!(text.contains("exit status: 2"), "{text}");
        assert!(text.contains("No such file"), "{text}");
        assert!(!e.is_retryable());
    }

    #[tokio::test]
    async fn the_deadline_kills_grandchildren_too() {
        let dir = tempfile::tempdir().unwrap();
        let alive = dir.path().join("alive");
        let script = format!("(sleep 2; touch {}) & sleep 60", alive.display());
        let e = Command::new(&program("sh"), Duration::from_millis(200))
            .args(["-c", &script])
            .run()
            .await
            .unwrap_err();
        assert!(matches!(e, CommandError::Deadline { .. }));
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(!alive.exists());
    }

    #[tokio::test]
    async fn the_environment_is_not_inherited() {
        let out = Command::new(&program("env"), SOON)
            .env("A", "b")
            .run()
            .await
            .unwrap();
        let text = out.stdout_text();
        assert!(
            text.contains("A=b") && text.contains("LC_ALL=C.UTF-8"),
            "{text}"
        );
        assert!(!text.contains("CARGO"), "{text}");
    }

    #[tokio::test]
    async fn files_arrive_under_their_numbers() {
        let (a_read, a_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (b_read, b_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(&a_write, b"first").unwrap();
        rustix::io::write(&b_write, b"second").unwrap();
        drop((a_write, b_write));
        let out = Command::new(&program("sh"), SOON)
            .args(["-c", "cat <&3; cat <&4"])
            .file(b_read, 4)
            .file(a_read, 3)
            .run()
            .await
            .unwrap();
        assert_eq!(out.stdout, b"firstsecond");
    }
}
