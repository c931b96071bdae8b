//! Holding a program back until its caller has put it where it belongs.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use rustix::pipe::{PipeFlags, pipe_with};

use crate::running::Running;
use crate::{Command, CommandError, Output, Program};

/// A started program that has not executed anything of its own yet. Dropping it ends the program unexecuted.
#[derive(Debug)]
pub struct Held {
    running: Running,
    release: OwnedFd,
    line: String,
}

impl Command {
    /// Starts the program held: its process exists and can be moved to a cgroup, but waits for [`Held::release`].
    /// `holder` is a program whose arguments `hold ...` end in [`hold`].
    ///
    /// # Errors
    ///
    /// [`CommandError::Start`].
    pub fn start_held(mut self, holder: &Program) -> Result<Held, CommandError> {
        let line = self.line();
        let (wait, release) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|source| CommandError::Start {
                command: line.clone(),
                source: source.into(),
            })?;
        let number = self.files.iter().map(|(_, n)| n + 1).max().unwrap_or(3);
        let mut args: Vec<OsString> = vec!["hold".into(), number.to_string().into(), "--".into()];
        args.push(self.program.into_string().into());
        args.append(&mut self.args);
        self.args = args;
        self.program = holder.path().to_owned();
        self.files.push((wait, number));
        let running = self.start_as(line.clone())?;
        Ok(Held {
            running,
            release,
            line,
        })
    }
}

impl Held {
    /// Its process id: the program's, once released.
    pub fn pid(&self) -> u32 {
        self.running.id()
    }

    /// Lets it go and waits for its end, as [`Command::run`].
    ///
    /// # Errors
    ///
    /// A [`CommandError`] of any kind.
    pub async fn release(self) -> Result<Output, CommandError> {
        // One byte into an empty pipe never blocks.
        rustix::io::write(&self.release, b"g").map_err(|source| CommandError::Io {
            command: self.line,
            source: source.into(),
        })?;
        drop(self.release);
        self.running.succeed().await
    }

    /// Ends it unexecuted, and waits for that.
    ///
    /// # Errors
    ///
    /// [`CommandError::Io`], [`CommandError::Deadline`].
    pub async fn cancel(self) -> Result<(), CommandError> {
        drop(self.release);
        self.running.end().await.map(|_| ())
    }
}

/// The holder's side, for the first lines of `main`: `args` are those after `hold`, namely `<fd> -- <program> [args]`. Waits for
/// one byte on the file descriptor, then becomes the program; ends if the descriptor is closed without it.
///
/// Returns only if the program was not executed. Call it before there are threads or open files.
pub fn hold(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match wait_and_exec(args.into_iter()) {
        Ok(never) => match never {},
        Err(Some(message)) => {
            eprintln!("hold: {message}");
            // As the shell answers for what it cannot execute.
            ExitCode::from(126)
        }
        // The caller changed its mind or died.
        Err(None) => ExitCode::from(125),
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the place that may")]
fn wait_and_exec(
    mut args: impl Iterator<Item = OsString>,
) -> Result<std::convert::Infallible, Option<String>> {
    let usage = || Some("usage: hold <fd> -- <program> [args]".to_owned());
    let number = args
        .next()
        .and_then(|n| n.to_str().and_then(|n| n.parse::<RawFd>().ok()));
    let (Some(number @ 3..), Some(dashes), Some(program)) = (number, args.next(), args.next())
    else {
        return Err(usage());
    };
    if dashes != "--" {
        return Err(usage());
    }
    // SAFETY: the caller gave this descriptor for this purpose alone, and nothing else in this single-threaded
    // process knows of it; if it is not open, read fails with EBADF.
    let wait = unsafe { OwnedFd::from_raw_fd(number) };
    let mut byte = [0];
    loop {
        match rustix::io::read(&wait, &mut byte) {
            Ok(0) => return Err(None),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Some(format!("file descriptor {number}: {e}"))),
        }
    }
    // The program must not inherit it.
    drop(wait);
    let error = std::process::Command::new(&program).args(args).exec();
    Err(Some(format!("{}: {error}", program.display())))
}
