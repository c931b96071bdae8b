//! What building, testing and the demo need on the machine. Debian 12 and 13.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, bail};
use camino::Utf8PathBuf;

use crate::go::Go;
use crate::run::{cargo, command, output, run, succeeds, workspace};
use crate::{cache, node};

/// All Debian packages, each with what it is for.
const PACKAGES: &[(&str, &str)] = &[
    // What nexcage runs.
    ("lxc", "pod sandboxes: lxc-start, lxc-info, lxc-stop"),
    ("crun", "the OCI runtime of app containers"),
    ("conmon", "keeps app containers, their logs and exit codes"),
    ("catatonit", "the first process of a sandbox"),
    (
        "containernetworking-plugins",
        "CNI plugins: bridge, host-local, portmap",
    ),
    (
        "golang-github-containers-common",
        "the default seccomp profile",
    ),
    ("iptables", "used by the CNI plugins bridge and portmap"),
    ("iproute2", "ip: links and network namespaces"),
    ("util-linux", "unshare, nsenter, setpriv, ipcmk"),
    (
        "mount",
        "hides the controllers of a hybrid-cgroup host from crun",
    ),
    (
        "procps",
        "ps and pgrep, for people who look at a failed test",
    ),
    // What the build needs.
    ("gcc", "linking, and the C code of some crates"),
    ("libc6-dev", "static programs in the test images"),
    ("make", "C code of some crates"),
    // What tests run in containers that they make themselves.
    ("busybox-static", "what containers of the unit tests run"),
    // What the test images are served by; what they are made of is not installed.
    ("docker-registry", "the local registry"),
    (
        "ca-certificates",
        "the Go module proxy and registries over HTTPS",
    ),
];

/// The cargo-deny that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// Installs everything and says what it does.
pub(crate) fn install_all() -> anyhow::Result<()> {
    install_packages()?;
    node::install_packages()?;
    install_rust_components()?;
    cargo_deny()?;
    Go::find().map(drop)
}

/// Installs the Debian packages that are missing. Quick when none is.
pub(crate) fn install_packages() -> anyhow::Result<()> {
    install(PACKAGES)
}

/// Installs those of some packages that are missing.
pub(crate) fn install(packages: &[(&str, &str)]) -> anyhow::Result<()> {
    let installed = installed_packages()?;
    let missing: Vec<_> = packages
        .iter()
        .filter(|(name, _)| !installed.contains(*name))
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("missing Debian packages:");
    for (name, purpose) in &missing {
        println!("  {name:34} {purpose}");
    }
    let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
    if !rustix::process::geteuid().is_root() {
        bail!(
            "installing packages needs root; run: sudo apt-get install {}",
            names.join(" ")
        );
    }
    let apt = || {
        let mut apt = command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run(apt().args(["update", "--quiet"]))?;
    run(apt()
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(&names))?;

    // These packages start a service; chores start programs of their own, where they disturb nobody.
    let systemd = fs::exists("/run/systemd/system").unwrap_or(false);
    for service in ["docker-registry", "containerd"] {
        if systemd && names.contains(&service) {
            run(command("systemctl").args(["disable", "--now", service]))?;
        }
    }
    Ok(())
}

fn installed_packages() -> anyhow::Result<BTreeSet<String>> {
    let list = output(command("dpkg-query").args(["-W", "-f", "${db:Status-Status} ${Package}\n"]))
        .context(
            "only Debian is supported: dpkg-query is needed to see which packages are there",
        )?;
    Ok(list
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
        .collect())
}

/// rustup reads `rust-toolchain.toml` and installs what it lists; other toolchains must have it.
fn install_rust_components() -> anyhow::Result<()> {
    for (component, program) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if succeeds(cargo().args([program, "--version"])) {
            continue;
        }
        run(command("rustup")
            .args(["component", "add", component])
            .current_dir(workspace()))
        .with_context(|| format!("the Rust component {component} is missing"))?;
    }
    Ok(())
}

/// cargo-deny: the one in `PATH`, or one built into the cache, which takes minutes once.
pub(crate) fn cargo_deny() -> anyhow::Result<Utf8PathBuf> {
    if succeeds(command("cargo-deny").arg("--version")) {
        return Ok("cargo-deny".into());
    }
    let inputs = cache::Inputs::new("cargo-deny 1").text(CARGO_DENY);
    let dir = cache::directory("cargo-deny", inputs, |dir| {
        println!("building cargo-deny {CARGO_DENY}, a few minutes once");
        // A target directory of its own: the workspace's profile and lock are not its concern.
        run(cargo()
            .args([
                "install",
                "cargo-deny",
                "--locked",
                "--quiet",
                "--version",
                CARGO_DENY,
            ])
            .args([
                "--root",
                dir.as_str(),
                "--target-dir",
                dir.join("target").as_str(),
            ])
            .current_dir("/"))?;
        fs::remove_dir_all(dir.join("target")).context("cannot remove the build directory")
    })?;
    Ok(dir.join("bin/cargo-deny"))
}
