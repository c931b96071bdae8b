//! The Debian package.
//!
//! Everything is built by cargo and gathered in `target/package/build/stage` ([`stage`]); debhelper, told by `packaging/debian`, puts
//! it in its places, works out the libraries it depends on, compresses, and writes the usual parts of the maintainer scripts. What is
//! left is one file, `target/package/nexcage_<version>_<architecture>.deb`.

mod stage;

use std::fs;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use crate::deps;
use crate::files::remove_tree;
use crate::run::{command, output, run, target_dir, workspace};

/// What the package is built and looked at with.
const PACKAGES: &[(&str, &str)] = &[
    ("debhelper", "puts files in their places in a package"),
    ("dh-apparmor", "loads AppArmor profiles at installation"),
    ("dpkg-dev", "dpkg-buildpackage and dpkg-shlibdeps"),
    ("binutils", "strip"),
];

const LINTIAN: &[(&str, &str)] = &[("lintian", "knows Debian's policy")];

/// The version of the package and of the program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Which package to make.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Package the development build with failpoints, as tests do; compiles faster.
    #[arg(long)]
    pub(crate) debug: bool,
    /// Add `+SUFFIX` to the version, for a package that is to upgrade another.
    #[arg(long, value_name = "SUFFIX")]
    pub(crate) suffix: Option<String>,
    /// Let lintian look at the package; whatever it finds is an error.
    #[arg(long)]
    pub(crate) lint: bool,
}

/// Makes the package and says where it is.
pub(crate) fn package(options: &Options) -> anyhow::Result<Utf8PathBuf> {
    deps::install(PACKAGES)?;
    let directory = target_dir().join("package");
    let build = directory.join("build");
    remove_tree(&build)?;
    stage::fill(&build.join("stage"), options.debug)?;
    let version = match &options.suffix {
        Some(suffix) => format!("{VERSION}+{suffix}"),
        None => VERSION.to_owned(),
    };
    describe(&build.join("debian"), &version)?;
    let mut buildpackage = command("dpkg-buildpackage");
    if options.debug {
        // Unpacked once and thrown away.
        buildpackage.env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    }
    run(buildpackage
        // Not the sources, not signed. The build's own dependencies were installed above.
        .args([
            "--build=binary",
            "--unsigned-changes",
            "--no-check-builddeps",
        ])
        .arg("--no-pre-clean")
        .current_dir(&build))?;
    let architecture = output(command("dpkg").arg("--print-architecture"))?;
    let name = format!("nexcage_{version}_{}", architecture.trim());
    for by_product in ["changes", "buildinfo"] {
        let path = directory.join(format!("{name}.{by_product}"));
        fs::remove_file(&path).with_context(|| format!("cannot remove {path}"))?;
    }
    let package = directory.join(format!("{name}.deb"));
    if options.lint {
        lint(&package)?;
    }
    println!("{package}");
    Ok(package)
}

/// debhelper's directory: what is kept in `packaging/debian`, and units under the names debhelper looks for.
fn describe(debian: &Utf8Path, version: &str) -> anyhow::Result<()> {
    run(command("cp").args([
        "-r",
        workspace().join("packaging/debian").as_str(),
        debian.as_str(),
    ]))?;
    for (unit, name) in [
        ("nexcage.service", "nexcage.service"),
        ("nexcage.tmpfiles", "nexcage.tmpfiles"),
    ] {
        let from = workspace().join("systemd/units").join(unit);
        let to = debian.join(name);
        fs::copy(&from, &to).with_context(|| format!("cannot copy {from} to {to}"))?;
    }
    let path = debian.join("changelog");
    let changelog = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    fs::write(&path, with_version(&changelog, version))
        .with_context(|| format!("cannot write {path}"))
}

/// The changelog, its newest entry with another version.
fn with_version(changelog: &str, version: &str) -> String {
    changelog.replacen(&format!("({VERSION})"), &format!("({version})"), 1)
}

fn lint(package: &Utf8Path) -> anyhow::Result<()> {
    deps::install(LINTIAN)?;
    run(command("lintian")
        .args(["--fail-on", "error,warning,info", "--display-info"])
        .args(["--info", "--tag-display-limit", "0"])
        .arg(package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_begins_with_this_version() {
        let changelog = include_str!("../../../packaging/debian/changelog");
        assert!(changelog.starts_with(&format!("nexcage ({VERSION}) ")));
        let other = with_version(changelog, "0.1.0+next");
        assert!(other.starts_with("nexcage (0.1.0+next) "));
    }

    #[test]
    fn profiles_are_installed_where_the_daemon_looks_for_them() {
        let list = include_str!("../../../packaging/debian/nexcage.install");
        let daemon = include_str!("../../../daemon/src/apparmor.rs");
        for name in ["nexcage-default", "lxc-container-nexcage"] {
            assert!(list.contains(&format!("stage/apparmor/{name} etc/apparmor.d\n")));
            assert!(daemon.contains(&format!("\"/etc/apparmor.d/{name}\"")));
        }
    }
}
