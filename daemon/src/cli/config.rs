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
        ConfigAction::Check { file } => check(file.as_deref())?,
        ConfigAction::Default => print(&nexcage_config::default_file())?,
        ConfigAction::Schema => print(&nexcage_config::schema())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: Option<&Utf8Path>) -> Result<(), CliError> {
    let path = file.unwrap_or(Utf8Path::new(nexcage_config::DEFAULT_PATH));
    let config = match Config::load(path) {
        Ok(config) => config,
        // As the daemon has it.
        Err(ConfigError::NotFound { .. }) if file.is_none() => {
            return print(&format!(
                "{path} is not there: everything has its default\n"
            ));
        }
        Err(ConfigError::Invalid { origin, problems }) => {
            for problem in problems {
                eprintln!("nexcage: {origin}: {problem}");
            }
            return Err(CliError::Told);
        }
        Err(error) => return Err(error.into()),
    };
    for key in nexcage_config::keys_without_effect(&config) {
        eprintln!("nexcage: {path}: {key}: has no effect in this build");
    }
    print(&format!("{path}: no problems\n"))
}
