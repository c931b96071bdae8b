//! Running programs, and looking at those that run.
//!
//! The daemon starts processes through nexcage-command; tests look at the daemon from outside and use
//! nothing of it.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// What a program said and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output, if it succeeded.
    ///
    /// # Errors
    ///
    /// With the command and all it said, if it did not.
    pub fn success(self) -> anyhow::Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        bail!("{self}")
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            code,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "`{command}` ended with {code:?}\nstdout: {stdout}\nstderr: {stderr}"
        )
    }
}

/// Runs a program to its end; after `seconds` it is killed, which ends it with code 137.
///
/// # Errors
///
/// If it cannot be started.
pub fn run(program: &str, args: &[&str], seconds: u64) -> anyhow::Result<Output> {
    run_in(program, args, seconds, &[])
}

/// The same with more environment variables.
///
/// # Errors
///
/// If it cannot be started.
pub fn run_in(
    program: &str,
    args: &[&str],
    seconds: u64,
    environment: &[(&str, &str)],
) -> anyhow::Result<Output> {
    let command = format!("{program} {}", args.join(" "));
    let output = Command::new("timeout")
        .args(["--signal=KILL", &seconds.to_string(), program])
        .args(args)
        .envs(environment.iter().copied())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{command}`"))?;
    Ok(Output {
        command,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A running process, as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its arguments, joined by spaces.
    pub command_line: String,
}

/// All processes of which `belongs` says so, but not this one. It gets the arguments and the line of
/// `mountinfo` that tells what the root directory is mounted from.
#[must_use]
pub fn find(belongs: impl Fn(&str, &str) -> bool) -> Vec<Process> {
    let myself = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| *name != myself) else {
            continue;
        };
        let Ok(number) = pid.parse() else { continue };
        // A process may end while we look; then there is nothing to read.
        let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let command_line = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let root = mounts
            .lines()
            .find(|line| line.split(' ').nth(4) == Some("/"));
        if belongs(&command_line, root.unwrap_or_default()) {
            found.push(Process {
                pid: number,
                command_line: command_line.trim_end().to_owned(),
            });
        }
    }
    found
}

/// Whether a process with this number runs; a zombie does not.
#[must_use]
pub fn runs(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Sends SIGKILL; no matter whether it runs.
pub fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
