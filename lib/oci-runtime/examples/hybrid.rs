//! A program with the subcommand `hybrid`, as nexcage is one; the tests create containers through it.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(word) if word == "hybrid" => nexcage_oci_runtime::hybrid(args),
        _ => ExitCode::from(2),
    }
}
