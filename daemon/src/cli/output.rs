//! Writing the answer.

use std::io::ErrorKind;

use serde::Serialize;

use super::error::CliError;

/// Writes text to standard output.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    write_all(&mut std::io::stdout().lock(), text.as_bytes())
}

/// Writes a value as JSON to standard output.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| CliError::io("cannot write JSON")(e.into()))?;
    text.push('\n');
    print(&text)
}

/// Writes bytes and flushes them.
pub(super) fn write_all(to: &mut impl std::io::Write, bytes: &[u8]) -> Result<(), CliError> {
    to.write_all(bytes)
        .and_then(|()| to.flush())
        .map_err(|source| match source.kind() {
            ErrorKind::BrokenPipe => CliError::OutputClosed,
            _ => CliError::io("cannot write the output")(source),
        })
}
