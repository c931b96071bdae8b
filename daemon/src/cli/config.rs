//! `nexcage config`, which needs no daemon.

use std::process::ExitCode;

use camino::Utf8Path;
use nexcage_config::{Config, ConfigError};

use super::args::{ConfigAction, ConfigArgs};
use super::error::CliError;
use super::output::print;

/// Checks a file, or prints what can be in one.
pub(super) fn run(args: ConfigArgs) -> Result<ExitCode, CliError> {
    match args.action {
        ConfigAction::Check { file } => check(&file)?,
        ConfigAction::Default => print(&nexcage_config::default_file())?,
        ConfigAction::Schema => print(&nexcage_config::schema())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Utf8Path) -> Result<(), CliError> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(ConfigError::Invalid { origin, problems }) => {
            for problem in problems {
                eprintln!("nexcage: {origin}: {problem}");
            }
            return Err(CliError::Told);
        }
        Err(error) => return Err(error.into()),
    };
    for path in nexcage_config::keys_without_effect(&config) {
        eprintln!("nexcage: {file}: {path}: has no effect in this build");
    }
    print(&format!("{file}: no problems\n"))
}
