//! Compiled dependencies, for clones that have none yet.
//!
//! Cargo names what it makes of a package by a hash of everything that decides what it will be, and of a package from a registry
//! that is the same in every clone. So a new clone need not compile it again: what another one has made is copied into its
//! `target/debug`, and cargo takes it for its own. Packages of the workspace are named by their path, too, and stay where they are.
//!
//! A unit is one way of compiling a package: its directory in `.fingerprint`, perhaps one in `build`, files in `deps`, all of the same hash.

use std::collections::HashSet;
use std::io;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use crate::build;
use crate::cache::{self, Inputs};
use crate::run::{command, output, target_dir, workspace};

const KIND: &str = "compiled";
/// Where cargo keeps what it knows of units. Written last: what is here is taken for whole.
const FINGERPRINTS: &str = ".fingerprint";
/// Directories of build scripts: the programs, and what they wrote.
const SCRIPTS: &str = "build";
/// Libraries, and what they were made from.
const LIBRARIES: &str = "deps";

/// A clone that has compiled nothing yet but its chores. What it compiles is what is needed, and nothing of former days.
pub(crate) struct NewClone {
    packages: HashSet<String>,
}

impl NewClone {
    /// `None` if this is not one.
    pub(crate) fn find() -> anyhow::Result<Option<Self>> {
        let packages = build::packages()?;
        let units = names(&target_dir().join("debug").join(FINGERPRINTS))?;
        let is_old = units
            .iter()
            .filter_map(|unit| split(unit))
            .any(|(package, _)| package != env!("CARGO_PKG_NAME") && packages.contains(package));
        Ok((!is_old).then_some(Self { packages }))
    }

    /// Copies what other clones have compiled into this one.
    pub(crate) fn bring(&self) -> anyhow::Result<()> {
        let Some(kept) = cache::find(KIND, inputs()?)? else {
            return Ok(());
        };
        let count = copy(&kept, &target_dir().join("debug"), |_| true)
            .with_context(|| format!("cannot take compiled dependencies from {kept}"))?;
        println!("{count} units of dependencies were compiled before, by another clone");
        Ok(())
    }

    /// Keeps what this clone has compiled for others.
    pub(crate) fn keep(&self) -> anyhow::Result<()> {
        cache::directory(KIND, inputs()?, |draft| {
            let wanted = |package: &str| !self.packages.contains(package);
            copy(&target_dir().join("debug"), draft, wanted).map(drop)
        })
        .context("cannot keep compiled dependencies")?;
        Ok(())
    }
}

fn inputs() -> anyhow::Result<Inputs> {
    let compiler = output(command("rustc").arg("-vV").current_dir(workspace()))?;
    Inputs::new("compiled 1")
        .text(&compiler)
        .file(&workspace().join("Cargo.lock"))?
        .file(&workspace().join("Cargo.toml"))
}

/// Copies the units of packages of the wanted names; how many. Also those that are there: cargo compiles anew what is older than
/// what it was made of.
fn copy(from: &Utf8Path, to: &Utf8Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<usize> {
    let units: Vec<_> = names(&from.join(FINGERPRINTS))?
        .into_iter()
        .filter(|unit| split(unit).is_some_and(|(package, _)| wanted(package)))
        .collect();
    let hashes: HashSet<_> = units
        .iter()
        .filter_map(|unit| split(unit))
        .map(|(_, hash)| hash)
        .collect();
    let belongs = |name: &String| {
        let stem = name.split_once('.').map_or(name.as_str(), |(stem, _)| stem);
        split(stem).is_some_and(|(_, hash)| hashes.contains(hash))
    };
    for kind in [LIBRARIES, SCRIPTS] {
        let entries = names(&from.join(kind))?.into_iter().filter(belongs);
        copy_entries(&from.join(kind), &to.join(kind), entries)?;
    }
    copy_entries(
        &from.join(FINGERPRINTS),
        &to.join(FINGERPRINTS),
        units.iter().cloned(),
    )?;
    Ok(units.len())
}

/// A unit's package, or a file's crate, and the hash.
fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('-')
}

/// What is in a directory; nothing if it is not there.
fn names(dir: &Utf8Path) -> anyhow::Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        dir.read_dir_utf8()?
            .map(|entry| Ok(entry?.file_name().to_owned()))
            .collect()
    };
    match read() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("cannot read {dir}")),
    }
}

/// With their times, which cargo compares.
fn copy_entries(
    from: &Utf8Path,
    to: &Utf8Path,
    names: impl Iterator<Item = String>,
) -> anyhow::Result<()> {
    /// Far below what a command line has room for.
    const AT_ONCE: usize = 500;
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {to}"))?;
    let paths: Vec<Utf8PathBuf> = names.map(|name| from.join(name)).collect();
    for paths in paths.chunks(AT_ONCE) {
        let mut cp = command("cp");
        cp.args(["--archive", "--target-directory", to.as_str()]);
        output(cp.args(paths))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(dir: &Utf8Path, files: &[&str]) {
        for file in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, dir.file_name().unwrap()).unwrap();
        }
    }

    #[test]
    fn whole_units_of_others_are_copied() {
        let _alone = cache::alone();
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(temporary.path()).unwrap();
        let (from, to) = (root.join("from"), root.join("to"));
        write(
            &from,
            &[
                ".fingerprint/a-b-01/lib-a_b",
                "build/a-b-01/out/x.o",
                "deps/liba_b-01.rlib",
                "deps/liba_b-01.rmeta",
                "deps/a_b-01.d",
                ".fingerprint/there-02/lib-there",
                "deps/libthere-02.rlib",
                ".fingerprint/own-03/lib-own",
                "deps/libown-03.rlib",
                "deps/own-03.1x2y.rcgu.o",
                "build/half-04/out/x.o",
                "deps/libhalf-04.rlib",
            ],
        );
        write(&to, &[".fingerprint/there-02/lib-there"]);

        assert_eq!(copy(&from, &to, |package| package != "own").unwrap(), 2);
        for copied in [
            ".fingerprint/a-b-01/lib-a_b",
            "build/a-b-01/out/x.o",
            "deps/liba_b-01.rlib",
            "deps/liba_b-01.rmeta",
            "deps/a_b-01.d",
            ".fingerprint/there-02/lib-there",
            "deps/libthere-02.rlib",
        ] {
            assert!(to.join(copied).exists(), "{copied}");
            let modified = |dir: &Utf8Path| fs::metadata(dir.join(copied)).unwrap().modified();
            assert_eq!(modified(&from).unwrap(), modified(&to).unwrap());
        }
        assert_eq!(names(&to.join("deps")).unwrap().len(), 4);
        assert_eq!(names(&to.join("build")).unwrap(), ["a-b-01"]);
        let there = to.join(".fingerprint/there-02/lib-there");
        assert_eq!(fs::read_to_string(there).unwrap(), "from");
    }
}
