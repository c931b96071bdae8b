//! Running programs and waiting. The simulator is no part of the runtime: it uses threads that block, and its processes have to outlive it.
#![allow(clippy::disallowed_methods)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camino::Utf8Path;

use crate::died::{Died, Outcome};

/// Sleeps.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Asks `done` again and again, for as long as it may take.
pub fn wait_for<T>(limit: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(result) = done() {
            return Some(result);
        }
        if Instant::now() >= end {
            return None;
        }
        pause(Duration::from_millis(10));
    }
}

/// Runs a program to its end, and gives what it printed. What it says on standard error goes to ours.
///
/// # Errors
///
/// Proxmox's words for a program that fails.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S], limit: Duration) -> Outcome<String> {
    let failed = |why: &str| {
        let arguments: Vec<_> = arguments
            .iter()
            .map(|a| a.as_ref().to_string_lossy())
            .collect();
        Died::new(format!(
            "command '{program} {}' failed: {why}",
            arguments.join(" ")
        ))
    };
    let child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| failed(&error.to_string()))?;
    let mut output = child.stdout.take();
    // Read beside the waiting, or a program that says much would wait for us.
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(output) = &mut output {
            let _ = std::io::Read::read_to_string(output, &mut text);
        }
        text
    });
    let ended = wait_for(limit, || child.try_wait().ok().flatten());
    let Some(status) = ended else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed("got timeout"));
    };
    let text = reader.join().unwrap_or_default();
    match status.code() {
        Some(0) => Ok(text),
        Some(code) => Err(failed(&format!("exit code {code}"))),
        None => Err(failed("got signal")),
    }
}

/// Starts a program that goes on without us, in a session of its own. Its standard error goes to a file.
///
/// # Errors
///
/// It cannot be started.
pub fn detach<S: AsRef<OsStr>>(
    program: &str,
    arguments: &[S],
    stderr: &Utf8Path,
) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(stderr)?)
        .process_group(0);
    command.spawn()
}

/// This program, for a part of it that is a process of its own.
///
/// # Errors
///
/// The program was removed.
pub fn ourselves() -> std::io::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// Whether systemd is the machine's init.
pub fn has_systemd() -> bool {
    Utf8Path::new("/run/systemd/system").exists()
}
