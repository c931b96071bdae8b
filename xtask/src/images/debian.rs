//! Programs and libraries out of Debian packages, without installing them.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};

use super::layer::Layer;
use crate::run::{command, output, run, succeeds};

/// Packages, fetched and unpacked into one directory.
pub(super) struct Unpacked {
    root: Utf8PathBuf,
}

/// Libraries that apache2-bin wants for modules which are not used here.
const NOT_NEEDED: &[&str] = &[
    "libaprutil1-",
    "libbrotli",
    "libcurl",
    "libjansson",
    "libldap",
    "liblua",
    "libnghttp2",
    "libxml2",
];

impl Unpacked {
    /// Fetches `packages` and the libraries they depend on, and unpacks them into `root`.
    pub(super) fn fetch(root: &Utf8Path, packages: &[&str]) -> anyhow::Result<Self> {
        if !packages
            .iter()
            .all(|package| succeeds(command("apt-cache").args(["show", package])))
        {
            run(command("apt-get").args(["update", "--quiet"]))?;
        }
        let mut wanted = BTreeSet::new();
        for package in packages {
            add_with_libraries(package, &mut wanted)?;
        }
        let downloads = root.join("downloads");
        fs::create_dir_all(&downloads).with_context(|| format!("cannot make {downloads}"))?;
        output(
            command("apt-get")
                // apt's own user may not write here, and need not: signatures are checked all the same.
                .args(["--quiet", "-o", "APT::Sandbox::User=root", "download"])
                .args(&wanted)
                .current_dir(&downloads),
        )?;
        let tree = root.join("tree");
        for package in files_in(&downloads)? {
            output(command("dpkg-deb").args(["-x", package.as_str(), tree.as_str()]))?;
        }
        Ok(Self { root: tree })
    }

    /// The content of a file, by one of the paths it may have.
    pub(super) fn read(&self, paths: &[&str]) -> anyhow::Result<Vec<u8>> {
        let path = self.path(paths)?;
        fs::read(&path).with_context(|| format!("cannot read {path}"))
    }

    /// Adds all shared libraries that `program`, a file in the tree, needs, and the loader.
    pub(super) fn add_libraries(
        &self,
        program: &Utf8Path,
        layer: &mut Layer,
    ) -> anyhow::Result<()> {
        let platform = Platform::here()?;
        let dirs = ["lib", "usr/lib"].map(|dir| self.root.join(dir).join(platform.triplet));
        let loader = dirs
            .iter()
            .map(|dir| dir.join(platform.loader))
            .find(|path| path.is_file())
            .with_context(|| format!("the package libc6 has no {}", platform.loader))?;

        // The loader itself says what it would load; nothing of the program is run.
        let list = output(
            command(&loader)
                .args([
                    "--library-path",
                    dirs.each_ref().map(|dir| dir.as_str()).join(":").as_str(),
                ])
                .args(["--list", program.as_str()]),
        )?;
        if let Some(missing) = list.lines().find(|line| line.contains("not found")) {
            bail!(
                "{program} needs a library that no fetched package has: {}",
                missing.trim()
            );
        }
        for (name, path) in list.lines().filter_map(listed_library) {
            let content = fs::read(path).with_context(|| format!("cannot read {path}"))?;
            layer.file(format!("lib/{}/{name}", platform.triplet), 0o644, content);
        }
        // glibc loads this one by itself when a thread ends, so no list has it.
        let unwinder =
            ["lib", "usr/lib"].map(|dir| format!("{dir}/{}/libgcc_s.so.1", platform.triplet));
        let content = self.read(&unwinder.each_ref().map(String::as_str))?;
        layer.file(
            format!("lib/{}/libgcc_s.so.1", platform.triplet),
            0o644,
            content,
        );
        let content = fs::read(&loader).with_context(|| format!("cannot read {loader}"))?;
        layer.file(
            format!("{}/{}", platform.loader_dir, platform.loader),
            0o755,
            content,
        );
        Ok(())
    }

    /// Where a file is, by one of the paths it may have: they differ between releases of Debian.
    pub(super) fn path(&self, paths: &[&str]) -> anyhow::Result<Utf8PathBuf> {
        paths
            .iter()
            .map(|path| self.root.join(path))
            .find(|path| path.is_file())
            .with_context(|| format!("no fetched package has any of {}", paths.join(", ")))
    }
}

/// `libz.so.1 => /path/libz.so.1 (0x...)`; lines without a path are the kernel's vdso and the loader.
fn listed_library(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.trim().split_once(" => ")?;
    let (path, _) = rest.rsplit_once(" (")?;
    Some((name, path))
}

/// Adds the package and, recursively, the libraries it depends on, but no other packages.
fn add_with_libraries(package: &str, wanted: &mut BTreeSet<String>) -> anyhow::Result<()> {
    if !wanted.insert(package.to_owned()) {
        return Ok(());
    }
    let record = output(command("apt-cache").args(["show", "--no-all-versions", package]))?;
    for dependency in dependencies(&record) {
        let library = dependency.starts_with("lib") || dependency == "zlib1g";
        let needed = !NOT_NEEDED
            .iter()
            .any(|prefix| dependency.starts_with(prefix));
        if library && needed {
            add_with_libraries(dependency, wanted)?;
        }
    }
    Ok(())
}

/// The names in the fields `Depends` and `Pre-Depends`, the first one of each choice.
fn dependencies(record: &str) -> impl Iterator<Item = &str> {
    record
        .lines()
        .filter_map(|line| {
            line.strip_prefix("Depends: ")
                .or_else(|| line.strip_prefix("Pre-Depends: "))
        })
        .flat_map(|list| list.split(", "))
        .filter_map(|choice| choice.split([' ', '|', ':', '(']).next())
}

fn files_in(dir: &Utf8Path) -> anyhow::Result<Vec<Utf8PathBuf>> {
    let mut files = Vec::new();
    for entry in dir
        .read_dir_utf8()
        .with_context(|| format!("cannot read {dir}"))?
    {
        let entry = entry.with_context(|| format!("cannot read {dir}"))?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            files.push(entry.path().to_path_buf());
        }
    }
    files.sort();
    Ok(files)
}

/// Where Debian has libraries, and where programs expect the loader.
struct Platform {
    triplet: &'static str,
    loader_dir: &'static str,
    loader: &'static str,
}

impl Platform {
    fn here() -> anyhow::Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self {
                triplet: "x86_64-linux-gnu",
                loader_dir: "lib64",
                loader: "ld-linux-x86-64.so.2",
            }),
            "aarch64" => Ok(Self {
                triplet: "aarch64-linux-gnu",
                loader_dir: "lib",
                loader: "ld-linux-aarch64.so.1",
            }),
            other => bail!("test images can be built on x86_64 and aarch64, not on {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_a_package_record() {
        let record = "Package: apache2-bin\nDepends: perl:any, libapr1 (>= 1.7.0), libaprutil1-dbd-sqlite3 | libaprutil1-dbd-mysql, zlib1g\nPre-Depends: libc6\n";
        let names: Vec<_> = dependencies(record).collect();
        assert_eq!(
            names,
            [
                "perl",
                "libapr1",
                "libaprutil1-dbd-sqlite3",
                "zlib1g",
                "libc6"
            ]
        );
    }

    #[test]
    fn libraries_are_read_from_the_loaders_list() {
        let line = "\tlibz.so.1 => /tmp/a b/libz.so.1 (0x00007f0000000000)";
        assert_eq!(
            listed_library(line),
            Some(("libz.so.1", "/tmp/a b/libz.so.1"))
        );
        assert_eq!(listed_library("\tlinux-vdso.so.1 (0x00007ffe)"), None);
    }
}
