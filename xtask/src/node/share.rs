//! What is under test, on a disk of its own.

use std::fs;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use super::ssh::Ssh;
use crate::go::Go;
use crate::run::{command, run};
use crate::{critools, images, test};

/// Bytes of the file system; the file is sparse.
const SIZE: u64 = 2 << 30;

/// What else goes on the disk, each by its name there.
#[derive(Default)]
pub(crate) struct More {
    /// The daemon; the development build if there is none.
    pub(crate) daemon: Option<Utf8PathBuf>,
    pub(crate) programs: Vec<(Utf8PathBuf, &'static str)>,
    pub(crate) files: Vec<(Utf8PathBuf, &'static str)>,
}

/// Makes `disk` with the daemon, crictl, critest, the test images and `more`, all of them built now if they are not yet.
pub(super) fn make(disk: &Utf8Path, more: &More) -> anyhow::Result<()> {
    let daemon = match &more.daemon {
        Some(daemon) => daemon.clone(),
        None => test::build_daemon()?,
    };
    let tools = critools::build(&Go::find()?)?;
    let images = images::storage()?;
    let tree = disk.with_extension("tree");
    fs::create_dir(&tree).with_context(|| format!("cannot make {tree}"))?;
    let programs = [
        (daemon, "nexcage"),
        (tools.crictl, "crictl"),
        (tools.critest, "critest"),
        (tools.ginkgo, "ginkgo"),
    ];
    for (program, name) in programs.iter().chain(&more.programs) {
        stripped(program, &tree.join(name))?;
    }
    for (file, name) in &more.files {
        fs::copy(file, tree.join(name)).with_context(|| format!("cannot copy {file}"))?;
    }
    run(command("cp").args(["-r", images.join("docker").as_str(), tree.as_str()]))?;
    make_empty(disk)?;
    run(command("mkfs.ext4")
        .args(["-q", "-F", "-L", "share", "-d", tree.as_str()])
        .arg(disk))?;
    fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {tree}"))
}

/// A disk of the same size with nothing on it.
pub(super) fn make_empty(disk: &Utf8Path) -> anyhow::Result<()> {
    fs::File::create(disk)
        .and_then(|file| file.set_len(SIZE))
        .with_context(|| format!("cannot make {disk}"))
}

/// Builds the daemon and puts it in the place of the one that runs there.
pub(super) fn push(node: &Ssh, dir: &Utf8Path) -> anyhow::Result<()> {
    let daemon = test::build_daemon()?;
    let draft = dir.join("nexcage");
    stripped(&daemon, &draft)?;
    node.copy(&draft, "/opt/nexcage/nexcage.new")?;
    node.run("mv /opt/nexcage/nexcage.new /opt/nexcage/nexcage && systemctl restart nexcage")
}

/// Without what only debuggers read: most of a program's size, all of which would have to be read through an emulated disk.
fn stripped(from: &Utf8Path, to: &Utf8Path) -> anyhow::Result<()> {
    run(command("strip").args(["-o", to.as_str(), from.as_str()]))
}
