//! The Go that crictl, critest and the test of the wire format are built with.
//!
//! Debian's is older than their modules ask for. Any Go, though, can fetch another one: toolchains are modules on the module
//! proxy (go.dev/doc/toolchain), checked against the public list of checksums as every module is. A Go from 1.21 on could
//! do that by itself, if it were not told otherwise (`GOTOOLCHAIN`); Debian 12 has 1.19.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::cache::{self, Inputs};
use crate::deps;
use crate::run::{command, output, run, succeeds, workspace};

/// The modules that are built.
const MODULES: [&str; 2] = ["tests/critools", "cri-api/tests/descriptor"];

/// Where Go is, when it is not in `PATH`: as its own archive is unpacked, and Debian's.
const PLACES: [&str; 3] = ["/usr/local/go/bin", "/usr/lib/go/bin", "/usr/bin"];

/// A version of Go.
type Version = (u32, u32, u32);

/// A Go that is new enough.
pub(crate) struct Go {
    program: Utf8PathBuf,
}

impl Go {
    /// The one that is there, or one fetched into the cache. Debian's is installed first if there is none at all.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let wanted = wanted()?;
        if installed().is_none() {
            deps::install(&[("golang-go", "fetches the Go that crictl and critest need")])?;
        }
        let program = installed().context("the package golang-go is installed, but has no go")?;
        if version_of(&program)? >= wanted {
            return Ok(Self { program });
        }
        fetch(&program, wanted)
    }

    /// `go`, which takes no other toolchain by itself.
    pub(crate) fn command(&self) -> Command {
        let mut go = command(&self.program);
        go.env("GOTOOLCHAIN", "local").env_remove("GOROOT");
        go
    }

    /// `PATH` with this Go first, for what calls `go` by itself.
    pub(crate) fn path(&self) -> String {
        let directory = self.program.parent().unwrap_or(Utf8Path::new("/"));
        match std::env::var("PATH") {
            Ok(path) => format!("{directory}:{path}"),
            Err(_) => directory.to_string(),
        }
    }
}

fn installed() -> Option<Utf8PathBuf> {
    let places = PLACES.map(|place| Utf8Path::new(place).join("go"));
    let found = std::iter::once(Utf8PathBuf::from("go")).chain(places);
    found
        .into_iter()
        .find(|go| succeeds(command(go).arg("version")))
        .map(|go| match go.is_absolute() {
            true => go,
            false => in_path(&go).unwrap_or(go),
        })
}

fn in_path(name: &Utf8Path) -> Option<Utf8PathBuf> {
    let path = std::env::var("PATH").ok()?;
    let found = path.split(':').map(|dir| Utf8Path::new(dir).join(name));
    found.into_iter().find(|file| file.is_file())
}

/// The newest that a module asks for.
fn wanted() -> anyhow::Result<Version> {
    let mut newest = (0, 0, 0);
    for module in MODULES {
        let file = workspace().join(module).join("go.mod");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("go "));
        let version = line.and_then(parse);
        newest = newest.max(version.with_context(|| format!("{file} names no version of Go"))?);
    }
    Ok(newest)
}

fn version_of(go: &Utf8Path) -> anyhow::Result<Version> {
    // Outside of any module, whose own wish would be in the answer.
    let text = output(
        command(go)
            .args(["env", "GOVERSION"])
            .env("GOTOOLCHAIN", "local")
            .current_dir("/"),
    )?;
    let version = text.trim().strip_prefix("go").and_then(parse);
    version.with_context(|| format!("{go} is of the unknown version {text:?}"))
}

/// `1.26.2`, `1.26`, `1.27rc1`, `1.19.8 X:nocoverageredesign`.
fn parse(text: &str) -> Option<Version> {
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    let (major, minor) = (number()?, number()?);
    let patch = match text.contains("rc") || text.contains("beta") {
        true => 0,
        false => number().unwrap_or(0),
    };
    Some((major, minor, patch))
}

/// Has `old` fetch the toolchain of this version.
fn fetch(old: &Utf8Path, (major, minor, patch): Version) -> anyhow::Result<Go> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no toolchain of Go is known for {other}"),
    };
    let module = format!("v0.0.1-go{major}.{minor}.{patch}.linux-{architecture}");
    let dir = cache::directory("go", Inputs::new("go 1").text(&module), |dir| {
        println!("fetching Go {major}.{minor}.{patch}, about 70 MB once");
        let modules = dir.join("modules");
        run(command(old)
            .args(["mod", "download", &format!("golang.org/toolchain@{module}")])
            .env("GOTOOLCHAIN", "local")
            .env("GOMODCACHE", &modules)
            // Otherwise nobody could delete it.
            .env("GOFLAGS", "-modcacherw")
            .current_dir("/"))?;
        let unpacked = modules.join(format!("golang.org/toolchain@{module}"));
        for programs in ["bin", &format!("pkg/tool/linux_{architecture}")] {
            make_executable(&unpacked.join(programs))?;
        }
        fs::rename(&unpacked, dir.join("go")).context("cannot rename the toolchain")?;
        fs::remove_dir_all(&modules).context("cannot remove the downloaded archive")
    })?;
    Ok(Go {
        program: dir.join("go/bin/go"),
    })
}

/// A module's files have no modes; the go command sets those of toolchains that it fetches for itself.
fn make_executable(programs: &Utf8Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot make the programs in {programs} executable");
    // Go 1.25 and newer build most tools when they are needed.
    if !programs.is_dir() {
        return Ok(());
    }
    for entry in programs.read_dir_utf8().with_context(cannot)? {
        let path = entry.with_context(cannot)?.into_path();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).with_context(cannot)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse("1.26.8"), Some((1, 26, 8)));
        assert_eq!(parse("1.27rc1"), Some((1, 27, 0)));
        assert_eq!(parse("1.26"), Some((1, 26, 0)));
        assert_eq!(parse("1.19.8 X:nocoverageredesign"), Some((1, 19, 8)));
        assert_eq!(parse("devel +abc"), None);
    }

    #[test]
    fn the_modules_ask_for_a_version() {
        assert!(wanted().unwrap() >= (1, 26, 0));
    }
}
