//! A registry with the images of `bench pull`, made once.

use std::fs;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use crate::cache::{self, Inputs};
use crate::registry::{Access, Registry};
use crate::run::{command, run, workspace};

/// Names of the images in the layout that `nexcage-bench generate` writes.
const IMAGES: [&str; 2] = ["ten", "large"];

/// The storage of the registry; built if it is not in the cache. About 1.5 GB.
pub(super) fn large_images(bench: &Utf8Path) -> anyhow::Result<Utf8PathBuf> {
    let source = workspace().join("bench/src/generate.rs");
    let inputs = Inputs::new("bench-images 1").file(&source)?;
    cache::directory("bench-images", inputs, |dir| {
        println!("making the images, a few minutes once");
        let layout = dir.join(".layout");
        run(command(bench).args(["generate", layout.as_str()]))?;
        let registry = Registry::start(dir, Access::ReadWrite)?;
        for image in IMAGES {
            run(command("skopeo")
                .args(["copy", "--quiet", "--dest-tls-verify=false"])
                .arg(format!("oci:{layout}:{image}"))
                .arg(format!(
                    "docker://{}/bench/{image}:latest",
                    registry.address()
                )))?;
        }
        fs::remove_dir_all(&layout).with_context(|| format!("cannot remove {layout}"))
    })
}
