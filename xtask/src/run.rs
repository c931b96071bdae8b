//! Running programs.
//!
//! The daemon starts processes through nexcage-command. Chores do not: that crate brings
//! tokio, and `cargo xtask` has to compile in seconds.
#![allow(clippy::disallowed_methods)]

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};

/// A program found in `PATH`, with the C locale, since some output is parsed.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// The same, but it is killed when the thread that starts it ends, however that ends.
pub(crate) fn mortal_command(program: impl AsRef<OsStr>) -> Command {
    let mut setpriv = command("setpriv");
    setpriv.args(["--pdeathsig", "KILL"]).arg(program);
    setpriv
}

/// The root of the workspace, whatever directory the chore was started in.
pub(crate) fn workspace() -> Utf8PathBuf {
    let manifest = Utf8Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Utf8PathBuf {
    match std::env::var("CARGO_TARGET_DIR") {
        Ok(dir) => workspace().join(dir),
        Err(_) => workspace().join("target"),
    }
}

/// `cargo` as it runs this very program, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

/// Prints the command, runs it with the terminal's streams and expects it to succeed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    println!("+ {}", shown(command));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs it silently, expects it to succeed and gives its standard output. What it said on
/// standard error is part of the error.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` failed: {}\n{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", shown(command)))
}

/// Whether it can be started and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}
