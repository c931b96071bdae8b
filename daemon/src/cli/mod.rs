//! The command line.

mod args;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};

/// The program: runs the subcommand that the arguments name.
pub fn main() -> ExitCode {
    if let Some(code) = called_back(std::env::args_os().skip(1)) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Daemon(args) => {
            let options = crate::serve::Options { config: args.config, dry_run: args.dry_run };
            match crate::serve::run(options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("nexcage: {error:#}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// The subcommands that nexcage itself has others call: they are no part of the interface, and
/// start neither clap nor tokio, because a pod waits for them.
fn called_back(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    match args.next()?.to_str()? {
        "hold" => Some(nexcage_command::hold(args)),
        _ => None,
    }
}
