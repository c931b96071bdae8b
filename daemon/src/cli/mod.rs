//! The command line: the daemon's front door, and a client of its socket.
//!
//! [`main`] looks at the first argument before anything else is set up: `hold`, `hybrid` and `hook` are what
//! nexcage has others run in its name, and a pod waits for them. Then clap reads the arguments (`args`), `daemon`
//! and `reset` go to `crate::serve`, `config` and `doctor` run by themselves, and the others connect (`client`) and run on one
//! thread. `proto` is the service that shows how far a pull is; `crate::admin` serves it.
//!
//! Each subcommand is a file. What they share is pure and tested without a daemon: `table`
//! (aligned columns), `human` (sizes and ages), `syntax` (`-p`, `-v`, `-e`, `--creds`),
//! `resolve` (what a name or the beginning of an id means), `log_line` and `tail` (CRI logs).
//!
//! Output for programs goes to standard output, progress and errors to standard error. A
//! failure is one line, `nexcage: <what>: <why>`. Exit codes: 0 done, 1 failed, 2 the arguments are wrong;
//! `exec` and `run` exit as the process in the container did.

mod args;
mod checkpoint;
mod client;
mod config;
mod create;
mod delete;
mod doctor;
mod error;
mod exec;
mod follow;
mod hook;
mod human;
mod images;
mod info;
mod list;
pub(crate) mod log_line;
mod logs;
mod make;
mod output;
mod pod_spec;
mod progress;
pub(crate) mod proto;
mod pull;
mod resolve;
mod run;
mod start_stop;
mod stats;
mod syntax;
mod table;
mod tail;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command, ResetArgs};
use client::Client;
use error::CliError;

/// The definition of the command line, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program: runs the subcommand that the arguments name.
pub fn main() -> ExitCode {
    if let Some(code) = called_back(std::env::args_os().skip(1)) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => error.report(),
    }
}

/// The subcommands that nexcage itself has others call: they are no part of the interface, and
/// start neither clap nor tokio, because a pod waits for them.
fn called_back(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    match args.next()?.to_str()? {
        "hold" => Some(nexcage_command::hold(args)),
        "hybrid" => Some(nexcage_oci_runtime::hybrid(args)),
        "hook" => Some(hook::run(args)),
        _ => None,
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    let Cli { socket, command } = cli;
    match command {
        Command::Daemon(args) => {
            let options = crate::serve::Options {
                config: args.config,
                dry_run: args.dry_run,
            };
            crate::serve::run(options).map_err(CliError::Daemon)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Config(args) => config::run(args),
        Command::Doctor(args) => doctor::run(&args, socket),
        Command::Reset(args) => reset(&args),
        command => {
            let socket = client::socket(socket)?;
            let tokio = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(CliError::io("cannot start"))?;
            tokio.block_on(with_daemon(&socket, command))
        }
    }
}

fn reset(args: &ResetArgs) -> Result<ExitCode, CliError> {
    if !args.yes {
        let what = "this removes all pods, images and state of nexcage; say --yes to do it";
        return Err(CliError::Usage(what.to_owned()));
    }
    crate::serve::reset(args.config.as_deref()).map_err(CliError::Daemon)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs what needs the daemon.
async fn with_daemon(socket: &camino::Utf8Path, command: Command) -> Result<ExitCode, CliError> {
    if let Command::Version(args) = command {
        return version::run(socket, &args).await;
    }
    let client = Client::connect(socket).await?;
    match command {
        Command::Info(args) => info::run(client, args).await,
        Command::List(args) => list::run(client, args).await,
        Command::Stats(args) => stats::run(client, args).await,
        Command::Images(args) => images::run(client, args).await,
        Command::Pull(args) => pull::run(client, args).await,
        Command::Logs(args) => logs::run(client, args).await,
        Command::Exec(args) => exec::run(client, args).await,
        Command::Run(args) => Box::pin(run::run(client, *args)).await,
        Command::Create(args) => Box::pin(create::run(client, *args)).await,
        Command::Start(args) => start_stop::start(client, args).await,
        Command::Stop(args) => start_stop::stop(client, args).await,
        Command::Checkpoint(args) => checkpoint::run(client, args).await,
        Command::Restore(args) => checkpoint::restore(client, args).await,
        Command::Delete(args) => delete::run(client, args).await,
        Command::Daemon(_)
        | Command::Config(_)
        | Command::Doctor(_)
        | Command::Reset(_)
        | Command::Version(_) => Ok(ExitCode::SUCCESS),
    }
}
