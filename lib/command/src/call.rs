//! One call of a program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitStatus;
use std::time::Duration;

use camino::Utf8PathBuf;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::child::Child;
use crate::process::{self, Plan, c_string, open_cgroup};
use crate::running::{Pipes, Running};
use crate::{CommandError, Program};

/// `PATH` of every program that is not told another.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
        let started = self.plan().and_then(|(plan, pipes)| {
            let child = Child::new(process::spawn(&plan)?)?;
            Ok((child, pipes))
        });
        match started {
            Ok((child, pipes)) => Ok(Running {
                child,
                pipes,
                line,
                limit,
                linger,
                deadline,
            }),
            Err(source) => Err(CommandError::Start {
                command: line,
                source,
            }),
        }
    }

    /// Everything the process is to be, and the ends of its pipes that stay here.
    fn plan(self) -> std::io::Result<(Plan, Pipes)> {
        let mut env = BTreeMap::from([
            (OsString::from("PATH"), OsString::from(PATH)),
            ("LC_ALL".into(), "C.UTF-8".into()),
        ]);
        env.extend(self.env);
        let pair = |(mut pair, value): (OsString, OsString)| {
            pair.push("=");
            pair.push(value);
            c_string(pair)
        };
        let program = c_string(self.program.as_str())?;
        let args = self.args.into_iter().map(c_string);
        let (streams, pipes) = streams(self.stdin, &self.output)?;
        let mut files = self.files;
        files.extend(streams);
        Ok((
            Plan {
                args: std::iter::once(Ok(program.clone()))
                    .chain(args)
                    .collect::<Result<_, _>>()?,
                env: env.into_iter().map(pair).collect::<Result<_, _>>()?,
                directory: c_string(self.directory.as_deref().unwrap_or("/".into()).as_str())?,
                cgroup: self.cgroup.as_deref().map(open_cgroup).transpose()?,
                program,
                files,
            },
            pipes,
        ))
    }
}

/// The standard streams of a program, and our ends of them.
fn streams(stdin: Stdin, output: &OutputTo) -> std::io::Result<([(OwnedFd, RawFd); 3], Pipes)> {
    let null = || File::options().read(true).write(true).open("/dev/null");
    let mut pipes = Pipes::default();
    let input = match stdin {
        Stdin::Null => null()?.into(),
        Stdin::Bytes(bytes) => {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            pipes.stdin = Some((Sender::from_owned_fd(ours)?, bytes));
            theirs
        }
    };
    let written = || -> std::io::Result<(OwnedFd, Option<Receiver>)> {
        match output {
            OutputTo::Null => Ok((null()?.into(), None)),
            OutputTo::Memory(_) => {
                let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
                Ok((theirs, Some(Receiver::from_owned_fd(ours)?)))
            }
        }
    };
    let (out, stdout) = written()?;
    let (err, stderr) = written()?;
    (pipes.stdout, pipes.stderr) = (stdout, stderr);
    Ok(([(input, 0), (out, 1), (err, 2)], pipes))
}
