//! A program with the subcommand `hold`, as nexcage is one; the tests start LXC through it.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(word) if word == "hold" => nexcage_command::hold(args),
        _ => ExitCode::from(2),
    }
}
