//! The packages of a simulated node, as dpkg tells of them.

use std::fs;

use anyhow::Context as _;
use camino::Utf8Path;

/// Where dpkg is told that its database is.
pub(super) const DATABASE: &str = "DPKG_ADMINDIR";

/// A database of dpkg with one package.
pub(super) fn install_pve_container(directory: &Utf8Path) -> anyhow::Result<()> {
    let status = "Package: pve-container\nStatus: install ok installed\nMaintainer: nobody\n\
        Architecture: all\nVersion: 6.1.10\nDescription: none\n";
    for below in ["info", "updates"] {
        let path = directory.join(below);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {path}"))?;
    }
    for (file, text) in [("status", status), ("info/format", "1\n")] {
        let path = directory.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}
