//! Images for the system tests, made from Debian's own packages without docker.
//!
//! critest pulls images by fixed names from registry.k8s.io, k8s.gcr.io and gcr.io. The
//! tests run without those registries: images with the same names and what the tests need
//! inside are built here and pushed into the storage of a local registry, which the daemon
//! is told to use as a mirror of them all.
//!
//! [`catalog`] says which images there are; [`contents`] what is in them; [`debian`] fetches
//! packages; [`layer`] makes a layer of files; [`push`] brings it all into a registry.

mod catalog;
mod contents;
mod debian;
mod layer;
mod push;

use std::rc::Rc;

use anyhow::Context as _;
use camino::Utf8PathBuf;
use serde_json::{Value, json};

use crate::cache::{self, Inputs};
use crate::registry::{Access, Registry};
use crate::run::{command, output, workspace};
use layer::Packed;

/// One image: its layers, lowest first, and how to run it.
struct Image {
    layers: Vec<Rc<Packed>>,
    run: RunConfig,
}

/// The part of an OCI image config that says how to run it; see the OCI image spec, `config.md`.
#[derive(Clone, Debug, Default)]
struct RunConfig {
    user: Option<&'static str>,
    entrypoint: Vec<&'static str>,
    cmd: Vec<&'static str>,
    stop_signal: Option<&'static str>,
}

impl RunConfig {
    /// As the `config` of an image config.
    fn to_json(&self) -> Value {
        let mut config = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        });
        if let Some(user) = self.user {
            config["User"] = json!(user);
        }
        if !self.entrypoint.is_empty() {
            config["Entrypoint"] = json!(self.entrypoint);
        }
        if !self.cmd.is_empty() {
            config["Cmd"] = json!(self.cmd);
        }
        if let Some(signal) = self.stop_signal {
            config["StopSignal"] = json!(signal);
        }
        config
    }
}

/// The storage of a registry that has all test images; built if it is not in the cache.
pub(crate) fn storage() -> anyhow::Result<Utf8PathBuf> {
    let arch = output(command("dpkg").arg("--print-architecture"))?;
    let release = std::fs::read_to_string("/etc/debian_version")
        .context("only Debian is supported: cannot read /etc/debian_version")?;
    let release = release.split('.').next().unwrap_or_default().to_owned();

    let mut inputs = Inputs::new("images 1").text(&arch).text(&release);
    for file in [
        "catalog.rs",
        "contents.rs",
        "debian.rs",
        "layer.rs",
        "mod.rs",
        "push.rs",
    ] {
        inputs = inputs.file(&workspace().join("xtask/src/images").join(file))?;
    }
    cache::directory("images", inputs, |dir| {
        println!("building the test images");
        let work = dir.join(".work");
        let programs = contents::Programs::gather(&work)?;
        let registry = Registry::start(dir, Access::ReadWrite)?;
        for (image, names) in catalog::all(&programs)? {
            for name in names {
                push::push(registry.address(), &image, &name)
                    .with_context(|| format!("cannot push {name}"))?;
                println!("  {name}");
            }
        }
        std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {work}"))
    })
}
