//! One call of a program.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use camino::Utf8PathBuf;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{CommandError, Program, cgroup, fds};

/// Output kept of each stream unless told otherwise, in bytes. Programs that nexcage drives answer in
/// kilobytes; one that does not must not take the daemon's memory with it.
const OUTPUT_LIMIT: usize = 16 << 20;

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
    pub(crate) program: Utf8PathBuf,
    pub(crate) args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: Option<Utf8PathBuf>,
    stdin: Stdin,
    pub(crate) files: Vec<(OwnedFd, RawFd)>,
    cgroup: Option<Utf8PathBuf>,
    output: OutputTo,
    linger: Option<Duration>,
    deadline: Duration,
}

/// Where standard output and standard error go.
#[derive(Debug)]
enum OutputTo {
    /// Kept, up to so many bytes each.
    Memory(usize),
    /// `/dev/null`.
    Null,
}

/// How a call ended, and what it wrote.
#[derive(Debug)]
pub struct Output {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output, at most the call's output limit (16 MiB by default).
    pub stdout: Vec<u8>,
    /// Standard error, likewise.
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
            cgroup: None,
            output: OutputTo::Memory(OUTPUT_LIMIT),
            linger: None,
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

    /// Runs in the cgroup of this cgroup v2 directory, from before its first instruction.
    #[must_use]
    pub fn cgroup(mut self, directory: impl Into<Utf8PathBuf>) -> Self {
        self.cgroup = Some(directory.into());
        self
    }

    /// Keeps at most `bytes` of each output stream; the rest is read and thrown away.
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output = OutputTo::Memory(bytes);
        self
    }

    /// Gives `/dev/null` as standard output and standard error: for a program that leaves processes behind.
    #[must_use]
    pub fn discard_output(mut self) -> Self {
        self.output = OutputTo::Null;
        self
    }

    /// When the program has ended, waits at most `duration` for other processes that still hold its
    /// output streams. Without this, output ends when all of them have closed it.
    #[must_use]
    pub fn linger(mut self, duration: Duration) -> Self {
        self.linger = Some(duration);
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
        self.start()?.succeed().await
    }

    /// As [`run`](Self::run), but any exit status is an answer.
    ///
    /// # Errors
    ///
    /// All of [`CommandError`] but `Failed`.
    pub async fn run_any_status(self) -> Result<Output, CommandError> {
        self.start()?.end().await
    }

    /// Starts the program without waiting for it.
    pub(crate) fn start(self) -> Result<Running, CommandError> {
        let line = self.line();
        self.start_as(line)
    }

    /// As [`start`](Self::start), with another command line for messages.
    pub(crate) fn start_as(self, line: String) -> Result<Running, CommandError> {
        tracing::trace!(command = %line, "start");
        let (deadline, linger) = (self.deadline, self.linger);
        let limit = match self.output {
            OutputTo::Memory(limit) => limit,
            OutputTo::Null => 0,
        };
        let (child, input) = self.spawn(&line)?;
        Ok(Running {
            group: Group::of(&child),
            child,
            input,
            line,
            limit,
            linger,
            deadline,
        })
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
        match self.output {
            OutputTo::Memory(_) => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
            OutputTo::Null => command.stdout(Stdio::null()).stderr(Stdio::null()),
        };
        let failed = |source| CommandError::Start {
            command: line.to_owned(),
            source,
        };
        if let Some(directory) = &self.cgroup {
            cgroup::join(&mut command, directory).map_err(failed)?;
        }
        fds::inherit(&mut command, self.files);
        let child = command.spawn().map_err(failed)?;
        Ok((child, input))
    }
}

/// Waits for the child's end and for its streams, for these at most `linger` longer.
async fn wait(
    child: &mut tokio::process::Child,
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

/// A program that was started. Dropping it kills the program and its process group.
#[derive(Debug)]
pub(crate) struct Running {
    // First, so that the group is killed before the child is reaped.
    group: Group,
    child: tokio::process::Child,
    input: Vec<u8>,
    line: String,
    limit: usize,
    linger: Option<Duration>,
    deadline: Duration,
}

impl Running {
    /// Its process id, while it has not been waited for.
    pub(crate) fn id(&self) -> Option<u32> {
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
            group,
            mut child,
            input,
            line: command,
            limit,
            linger,
            deadline,
        } = self;
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let stdin = child.stdin.take();

        let streams = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A program may end without reading all of it; its status tells.
                    let _ = stdin.write_all(&input).await;
                }
                Ok(())
            };
            tokio::try_join!(
                feed,
                drain(out, limit, &mut stdout),
                drain(err, limit, &mut stderr)
            )
            .map(|_| ())
        };
        let ended = tokio::time::timeout(deadline, wait(&mut child, streams, linger)).await;
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

/// Kills the whole process group when dropped while armed.
#[derive(Debug)]
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
    async fn output_beyond_the_limit_is_read_and_dropped() {
        let out = Command::new(&program("head"), SOON)
            .args(["-c", "3000000", "/dev/zero"])
            .output_limit(1000)
            .run()
            .await
            .unwrap();
        assert_eq!(out.stdout.len(), 1000);
    }

    #[tokio::test]
    async fn a_process_left_behind_is_waited_for_only_while_lingering() {
        let started = std::time::Instant::now();
        let out = Command::new(&program("sh"), SOON)
            .args(["-c", "sleep 30 & echo $!; echo bad >&2; exit 3"])
            .linger(Duration::from_millis(100))
            .run_any_status()
            .await
            .unwrap();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(out.status.code(), Some(3));
        assert_eq!(out.stderr, b"bad\n");
        let left = Pid::from_raw(out.stdout_text().trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(left, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn discarded_output_holds_nobody_up() {
        let started = std::time::Instant::now();
        let out = Command::new(&program("sh"), SOON)
            .args(["-c", "sleep 3 & echo lost"])
            .discard_output()
            .run()
            .await
            .unwrap();
        assert!(started.elapsed() < Duration::from_secs(2));
        assert!(out.stdout.is_empty());
    }

    #[tokio::test]
    async fn a_missing_cgroup_is_named() {
        let e = Command::new(&program("true"), SOON)
            .cgroup("/sys/fs/cgroup/no-such-group")
            .run()
            .await
            .unwrap_err();
        let source = std::error::Error::source(&e).unwrap().to_string();
        assert!(source.contains("/sys/fs/cgroup/no-such-group"), "{source}");
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
