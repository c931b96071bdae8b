//! Removing what may not be there.

use std::fs;
use std::io::{self, ErrorKind};

use anyhow::Context as _;
use camino::Utf8Path;

/// Removes a directory with all below it, if there is one.
pub(crate) fn remove_tree(dir: &Utf8Path) -> anyhow::Result<()> {
    if_there(fs::remove_dir_all(dir)).with_context(|| format!("cannot remove {dir}"))
}

/// Removes a file, if there is one.
pub(crate) fn remove_file(path: &Utf8Path) -> anyhow::Result<()> {
    if_there(fs::remove_file(path)).with_context(|| format!("cannot remove {path}"))
}

fn if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
