//! A program with the subcommands `hold` and `hybrid`, as nexcage is one; the tests start sandboxes through it.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(word) if word == "hold" => nexcage_command::hold(args),
        Some(word) if word == "hybrid" => nexcage_oci_runtime::hybrid(args),
        _ => ExitCode::from(2),
    }
}
