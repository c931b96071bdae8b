//! The demo: nexcage's main job on real parts, in one command, leaving nothing behind.
//!
//! A local registry with images made from Debian's packages, the daemon with the embedded defaults
//! (overlayfs, plain LXC) below directories of the demo's own, a pod of two containers that talk over localhost,
//! and the questions one asks of it. [`Stage`] holds what the demo makes on the machine and takes it away
//! again, also what a demo that was killed has left.
#![allow(clippy::disallowed_methods)]

mod stage;

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::deps;
use crate::images;
use crate::registry::{Access, Registry};
use crate::run::{cargo, run, target_dir};
use stage::Stage;

/// The image of both containers, by the name a user would type; the registry is a mirror of docker.io.
const SHELL: &str = "docker.io/library/busybox:latest";
const WEB: &str = "registry.k8s.io/e2e-test-images/nginx:1.14-2";

/// Plays the demo.
pub(crate) fn play() -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the demo starts containers: run it as root"
    );
    step("Installing what is missing");
    deps::install_packages()?;
    step("Building nexcage");
    run(cargo().args(["build", "--package", "nexcage"]))?;
    step("Starting a local registry with images made from Debian's packages");
    let registry = Registry::start(&images::storage()?, Access::ReadOnly)?;
    println!("registry at {}", registry.address());
    step("Starting the daemon (overlayfs, plain LXC)");
    let program = target_dir().join("debug/nexcage");
    let stage = Stage::set(&program, registry.address())?;
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
    std::thread::sleep(Duration::from_secs(3));
    let heard = stage.nexcage(&["logs", "--tail", "2", "demo/client"])?;
    ensure!(
        !heard.trim().is_empty(),
        "the client heard nothing from the web server"
    );

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
    std::thread::sleep(Duration::from_secs(2));
    let after = stage.quietly(&["logs", "demo/client"])?.lines().count();
    ensure!(
        after > before,
        "the client's log does not grow after the daemon's restart"
    );

    step("Removing the pod");
    stage
        .nexcage(&["delete", "--force", "demo"])
        .context("the pod cannot be removed")?;
    Ok(())
}

fn step(what: &str) {
    println!("\n\x1b[1m== {what}\x1b[0m");
}
