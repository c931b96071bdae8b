//! A program with the subcommands `hold`, `hybrid` and `hook post-stop`, as nexcage is one; the tests start sandboxes through it.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(word) if word == "hold" => nexcage_command::hold(args),
        Some(word) if word == "hybrid" => nexcage_oci_runtime::hybrid(args),
        Some(word) if word == "hook" => post_stop(args),
        _ => ExitCode::from(2),
    }
}

fn post_stop(args: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let words: Vec<_> = args.filter_map(|word| word.into_string().ok()).collect();
    match words.as_slice() {
        [kind, cgroup, include, ..] if kind == "post-stop" => {
            match nexcage_lxc::post_stop(cgroup.as_str().into(), include.as_str().into()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        _ => ExitCode::from(2),
    }
}
