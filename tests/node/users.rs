//! Pods with `hostUsers: false` on the file systems of users' nodes: who owns what inside, and what on disk.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use nexcage_tests::users::{BASE, fill_volume, mapped, own};
use nexcage_tests::{Pod, process, spec, wait};
use serde_json::{Value, json};

use crate::node::{KEPT, PATIENCE, nexcage};
use crate::{Node, settings};

/// Bytes of the disk with xfs, which takes no smaller one than 300 MB; the file is sparse.
const DISK: u64 = 512 << 20;

/// The dataset that is a volume.
const DATASET: &str = "tank/volume";

#[test]
fn files_on_volumes_belong_to_whom_they_belong_on_disk() {
    Node::test(|node| {
        on_ext4(|volume| owners_are_kept(node, "ext4", volume))?;
        on_xfs(node, |volume| owners_are_kept(node, "xfs", volume))?;
        on_zfs(node, |volume| owners_are_kept(node, "zfs", volume))
    });
}

/// Inside and on disk, each file of a volume has the same owner, whoever made it.
fn owners_are_kept(node: &Node, kind: &str, volume: &Utf8Path) -> anyhow::Result<()> {
    let arguments = ["--noheadings", "--output", "FSTYPE", "--target"];
    let arguments = [&arguments[..], &[volume.as_str()]].concat();
    let found = process::run("findmnt", &arguments, PATIENCE)?.success()?;
    ensure!(
        found.trim() == kind,
        "{volume} is on {found}, not on {kind}"
    );
    fill_volume(volume)?;
    let pod = run_pod(node, kind)?;
    let mut config = own(spec::shell(kind, spec::COUNT));
    config["mounts"] = json!([mapped(volume)]);
    let id = node.start(&pod, &config)?;
    let owner = owner(Utf8Path::new(&format!("/proc/{}", node.pid(&id)?)))?;
    ensure!(owner == (BASE, BASE), "its processes are of {owner:?}");
    let made = "stat -c %u:%g /data/of-1000; echo new >/data/new; chown 5:6 /data/new";
    let seen = run(node, &id, made)?;
    ensure!(seen == "1000:2000", "a file of 1000:2000 is {seen} inside");
    let new = self::owner(&volume.join("new"))?;
    ensure!(
        new == (5, 6),
        "a file that is 5:6 inside is {new:?} on disk"
    );
    let group = self::owner(&volume.join("group"))?;
    ensure!(group == (0, 2000), "the volume was changed: {group:?}");
    Ok(())
}

/// Layers are on xfs then, and what containers write.
#[test]
fn root_filesystems_may_be_on_xfs() {
    Node::test(|node| {
        node.remove_everything()?;
        on_xfs(node, |root| {
            let storage = json!({ "driver": "overlay", "root": root });
            let change = |config: &mut Value| config["storage"] = storage;
            settings::with(node, change, || a_root_filesystem_is_mapped(node, root))
        })
    });
}

fn a_root_filesystem_is_mapped(node: &Node, root: &Utf8Path) -> anyhow::Result<()> {
    let info = nexcage(&["info", "--output", "json"])?.success()?;
    let info: Value = serde_json::from_str(&info).context("`info` is no JSON")?;
    ensure!(info["storage_driver"] == "overlay", "{info}");
    node.pull()?;
    let pod = run_pod(node, "layers")?;
    let id = node.start(&pod, &own(spec::shell("layers", spec::COUNT)))?;
    let script = "stat -c %u:%g /bin/busybox; \
                  echo mine >/of-its-user; chown 5:6 /of-its-user; stat -c %u:%g /of-its-user";
    let seen = run(node, &id, script)?;
    ensure!(seen == "0:0\n5:6", "inside, owners are {seen}");
    // overlayfs does not map the upper layer, so that is on disk as the namespace has it.
    let layers = root.join("overlay");
    let find = [
        layers.as_str(),
        "-name",
        "of-its-user",
        "-printf",
        "%U:%G\\n",
    ];
    let on_disk = process::run("find", &find, PATIENCE)?.success()?;
    let expected = format!("{}:{}", BASE + 5, BASE + 6);
    ensure!(
        on_disk.contains(&expected) && on_disk.lines().all(|owner| owner == expected),
        "on disk, the file that is 5:6 inside is {on_disk}"
    );
    Ok(())
}

#[test]
fn a_volume_that_cannot_be_mapped_is_refused_by_name() {
    Node::test(|node| {
        let point = Utf8Path::new(KEPT).join("ramfs");
        let mount = ["mount", "-t", "ramfs", "none", point.as_str()];
        with_mount(
            node,
            &point,
            &mount,
            &["umount", point.as_str()],
            |volume| {
                fill_volume(volume)?;
                let pod = run_pod(node, "unmappable")?;
                let mut config = own(spec::shell("unmappable", spec::COUNT));
                config["mounts"] = json!([mapped(volume)]);
                let error = match node.start(&pod, &config) {
                    Ok(id) => anyhow::bail!("{id} was started"),
                    Err(error) => format!("{error:#}"),
                };
                for word in ["mounts[0].uidMappings", "ramfs", volume.as_str()] {
                    ensure!(error.contains(word), "{word} is not named: {error}");
                }
                // Without a mapping it is as good as any other: nobody inside owns anything there.
                config["mounts"] = json!([{ "container_path": "/data", "host_path": volume }]);
                let id = node.start(&pod, &config)?;
                let seen = run(node, &id, "stat -c %u:%g /data/of-1000")?;
                ensure!(seen == "65534:65534", "a file of somebody else's is {seen}");
                Ok(())
            },
        )
    });
}

fn run_pod(node: &Node, name: &str) -> anyhow::Result<Pod> {
    node.run_pod_with(name, |config| *config = own(config.take()))
}

/// What a shell command in a container prints.
fn run(node: &Node, container: &str, command: &str) -> anyhow::Result<String> {
    let exec = ["exec", "--sync", container, "sh", "-c", command];
    node.crictl().run(&exec)
}

/// User and group on disk.
fn owner(path: &Utf8Path) -> anyhow::Result<(u32, u32)> {
    let file = fs::metadata(path).with_context(|| format!("cannot look at {path}"))?;
    Ok((file.uid(), file.gid()))
}

/// On the node's own disk.
fn on_ext4(work: impl FnOnce(&Utf8Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let volume = Utf8Path::new(KEPT).join("ext4");
    fs::create_dir_all(&volume).with_context(|| format!("cannot make {volume}"))?;
    let done = work(&volume);
    fs::remove_dir_all(&volume).with_context(|| format!("cannot remove {volume}"))?;
    done
}

/// On a disk of its own, which is a file.
fn on_xfs(node: &Node, work: impl FnOnce(&Utf8Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let [disk, point] = ["xfs.img", "xfs"].map(|name| Utf8Path::new(KEPT).join(name));
    fs::File::create(&disk)
        .and_then(|file| file.set_len(DISK))
        .with_context(|| format!("cannot make {disk}"))?;
    process::run("mkfs.xfs", &["-q", disk.as_str()], 2 * PATIENCE)?.success()?;
    let mount = ["mount", "-o", "loop", disk.as_str(), point.as_str()];
    let done = with_mount(node, &point, &mount, &["umount", point.as_str()], work);
    fs::remove_file(&disk).with_context(|| format!("cannot remove {disk}"))?;
    done
}

/// On a dataset of its own.
fn on_zfs(node: &Node, work: impl FnOnce(&Utf8Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let point = Utf8PathBuf::from(KEPT).join("zfs");
    let at = format!("mountpoint={point}");
    let create = ["zfs", "create", "-o", &at, DATASET];
    with_mount(node, &point, &create, &["zfs", "destroy", DATASET], work)
}

/// Mounts something, does the work, removes the pods that use it, and unmounts it, however the work ended.
fn with_mount(
    node: &Node,
    point: &Utf8Path,
    mount: &[&str],
    unmount: &[&str],
    work: impl FnOnce(&Utf8Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    fs::create_dir_all(point).with_context(|| format!("cannot make {point}"))?;
    let command = |line: &[&str]| process::run(line[0], &line[1..], PATIENCE);
    command(mount)?.success()?;
    let done = work(point);
    let removed = node.remove_pods();
    // A container's mounts go a moment after it has ended.
    let mut last = String::new();
    let unmounted = wait::until_true("it is unmounted", PATIENCE, || {
        let output = command(unmount)?;
        last = output.to_string();
        Ok(output.code == Some(0))
    });
    done?;
    removed?;
    unmounted.with_context(|| last)?;
    match fs::remove_dir(point) {
        // zfs may have removed it.
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {point}"))
        }
        _ => Ok(()),
    }
}
