//! What is under test, on a disk of its own.

use std::fs;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use super::machine::Machine;
use crate::run::{command, run};
use crate::{critools, images, test};

/// Bytes of the file system; the file is sparse.
const SIZE: u64 = 2 << 30;

/// Makes `disk` with the daemon, crictl, critest and the test images, all of them built now if they are not yet.
pub(crate) fn make(disk: &Utf8Path) -> anyhow::Result<()> {
    let daemon = test::build_daemon()?;
    let tools = critools::build()?;
    let images = images::storage()?;
    let tree = disk.with_extension("tree");
    fs::create_dir(&tree).with_context(|| format!("cannot make {tree}"))?;
    let programs = [
        (&daemon, "nexcage"),
        (&tools.crictl, "crictl"),
        (&tools.critest, "critest"),
    ];
    for (program, name) in programs {
        stripped(program, &tree.join(name))?;
    }
    run(command("cp").args(["-r", images.join("docker").as_str(), tree.as_str()]))?;
    fs::File::create(disk)
        .and_then(|file| file.set_len(SIZE))
        .with_context(|| format!("cannot make {disk}"))?;
    run(command("mkfs.ext4")
        .args(["-q", "-F", "-L", "share", "-d", tree.as_str()])
        .arg(disk))?;
    fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {tree}"))
}

/// Builds the daemon and puts it in the place of the one that runs there.
pub(crate) fn push(machine: &Machine) -> anyhow::Result<()> {
    let daemon = test::build_daemon()?;
    let draft: Utf8PathBuf = machine.file("nexcage");
    stripped(&daemon, &draft)?;
    machine.ssh().copy(&draft, "/opt/nexcage/nexcage.new")?;
    machine
        .ssh()
        .run("mv /opt/nexcage/nexcage.new /opt/nexcage/nexcage && systemctl restart nexcage")
}

/// Without what only debuggers read: most of a program's size, all of which would have to be read through an emulated disk.
fn stripped(from: &Utf8Path, to: &Utf8Path) -> anyhow::Result<()> {
    run(command("strip").args(["-o", to.as_str(), from.as_str()]))
}
