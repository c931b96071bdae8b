//! The demo: nexcage's main job on real parts, in one command, leaving nothing behind.
//!
//! A local registry with images made from Debian's packages, the daemon with the embedded defaults
//! (overlayfs, plain LXC) below directories of the demo's own, a pod of two containers that talk over localhost,
//! and the questions one asks of it. [`Stage`] holds what the demo makes on the machine and takes it away
//! again, also what a demo that was killed has left.
#![allow(clippy::disallowed_methods)]

mod stage;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use crate::build::{self, Program};
use crate::deps;
use crate::images;
use crate::registry::{Access, Registry};
use stage::Stage;

/// The image of both containers, by the name a user would type; the registry is a mirror of docker.io.
const SHELL: &str = "docker.io/library/busybox:latest";
const WEB: &str = "registry.k8s.io/e2e-test-images/nginx:1.14-2";

/// How long the client may take to hear something. An emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays the demo; with a daemon and a registry that are there already, or with its own.
pub(crate) fn play(ready: Option<(Utf8PathBuf, SocketAddr)>) -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the demo starts containers: run it as root"
    );
    match ready {
        Some((program, registry)) => play_with(&program, registry),
        None => {
            let (program, registry) = prepare()?;
            play_with(&program, registry.address())
        }
    }
}

fn prepare() -> anyhow::Result<(Utf8PathBuf, Registry)> {
    step("Installing what is missing");
    deps::install_packages()?;
    step("Building nexcage");
    let program = build::program(Program::Bin("nexcage"), &[])?;
    step("Starting a local registry with images made from Debian's packages");
    let registry = Registry::start(&images::storage()?, Access::ReadOnly)?;
    println!("registry at {}", registry.address());
    Ok((program, registry))
}

fn play_with(program: &Utf8Path, registry: SocketAddr) -> anyhow::Result<()> {
    step("Starting the daemon (overlayfs, plain LXC)");
    let stage = Stage::set(program, registry)?;
    let shown = show(&stage);
    step("Cleaning up");
    let struck = stage.strike();
    // What went wrong first says more.
    shown.and(struck)?;
    println!("\nThe demo is done, and nothing of it is left on this machine.");
    Ok(())
}

fn show(stage: &Stage) -> anyhow::Result<()> {
    step("Pulling two images");
    stage.nexcage(&["pull", WEB])?;
    stage.nexcage(&["pull", SHELL])?;
    stage.nexcage(&["images"])?;

    step("Running a pod: a web server, and a client that asks it over localhost");
    stage.nexcage(&["run", "--detach", "--name", "demo", WEB])?;
    let client = "while sleep 1; do wget -q -O - http://127.0.0.1/ | head -n 1; done";
    stage.nexcage(&[
        "run", "--detach", "--pod", "demo", "--name", "client", SHELL, "sh", "-c", client,
    ])?;
    stage.nexcage(&["list"])?;

    step("What the client heard");
    wait_for("the client heard nothing from the web server", || {
        Ok(stage.quietly(&["logs", "demo/client"])?.lines().count() >= 2)
    })?;
    stage.nexcage(&["logs", "--tail", "2", "demo/client"])?;

    step("A command in the web server's container");
    stage.nexcage(&["exec", "demo/demo", "--", "ps"])?;

    step("What the containers use");
    stage.nexcage(&["stats"])?;

    step("The pod is an LXC container");
    let seen = stage.lxc_ls()?;
    ensure!(
        seen.contains("RUNNING"),
        "lxc-ls does not show the pod as running"
    );

    step("The daemon is killed; the pod does not care");
    stage.kill_daemon()?;
    stage.start_daemon()?;
    stage.nexcage(&["list"])?;
    let before = stage.quietly(&["logs", "demo/client"])?.lines().count();
    wait_for(
        "the client's log does not grow after the daemon's restart",
        || Ok(stage.quietly(&["logs", "demo/client"])?.lines().count() > before),
    )?;

    step("Removing the pod");
    stage
        .nexcage(&["delete", "--force", "demo"])
        .context("the pod cannot be removed")?;
    Ok(())
}

fn wait_for(otherwise: &str, ready: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !ready()? {
        ensure!(Instant::now() < end, "{otherwise}");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

fn step(what: &str) {
    println!("\n\x1b[1m== {what}\x1b[0m");
}
