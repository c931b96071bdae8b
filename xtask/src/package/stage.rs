//! What goes into the package, all of it built now.

use std::fs;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use crate::build::{self, Program};
use crate::run::{cargo, command, run, target_dir, workspace};
use crate::test;

/// Files that are taken as they are, and their names in the stage.
const FILES: &[(&str, &str)] = &[
    ("packaging/config.json", "config.json"),
    ("config/default.json", "examples/config.json"),
    ("systemd/units/nexcage.slice", "nexcage.slice"),
    (
        "daemon/apparmor/nexcage-default",
        "apparmor/nexcage-default",
    ),
    (
        "daemon/apparmor/lxc-container-nexcage",
        "apparmor/lxc-container-nexcage",
    ),
    ("docs/install.md", "docs/install.md"),
    ("docs/operate.md", "docs/operate.md"),
    ("docs/storage.md", "docs/storage.md"),
    ("docs/proxmox.md", "docs/proxmox.md"),
    ("docs/config.md", "docs/config.md"),
    ("config/schema.json", "docs/schema.json"),
];

/// Fills the directory.
pub(super) fn fill(stage: &Utf8Path, debug: bool) -> anyhow::Result<()> {
    fs::create_dir_all(stage).with_context(|| format!("cannot make {stage}"))?;
    let program = program(debug)?;
    run(command("strip")
        .args(["--strip-unneeded", "--remove-section=.comment", "-o"])
        .arg(stage.join("nexcage"))
        .arg(&program))?;
    manual(stage, debug)?;
    for (from, name) in FILES {
        let (from, to) = (workspace().join(from), stage.join(name));
        let parent = to.parent().unwrap_or(stage);
        fs::create_dir_all(parent)
            .and_then(|()| fs::copy(&from, &to))
            .with_context(|| format!("cannot copy {from} to {to}"))?;
    }
    // The program must start with what it is installed with.
    run(command(program).args(["config", "check", stage.join("config.json").as_str()]))
}

fn program(debug: bool) -> anyhow::Result<Utf8PathBuf> {
    if debug {
        return test::build_daemon();
    }
    run(cargo().args(["build", "--release", "--locked", "--package", "nexcage"]))?;
    Ok(target_dir().join("release/nexcage"))
}

/// Man pages and completions, from the definition of the command line.
fn manual(stage: &Utf8Path, debug: bool) -> anyhow::Result<()> {
    let manual = Program::Example("manual");
    let mut command = if debug {
        command(build::program(manual, &[test::FAILPOINTS])?)
    } else {
        let mut cargo = cargo();
        cargo.args(["run", "--quiet", "--release", "--locked"]);
        cargo.args(["--package", "nexcage", "--example", "manual", "--"]);
        cargo
    };
    run(command.arg(stage))
}
