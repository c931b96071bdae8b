//! Taking away what a run has left on the machine.

use std::fs;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;

use crate::{process, stage};

/// Ends processes, unmounts, and removes links, cgroups and directories that carry the name, and files of others' directories.
pub(crate) fn sweep(
    name: &str,
    dirs: &[Utf8PathBuf],
    files: &[Utf8PathBuf],
    bridges: &[String],
) -> anyhow::Result<()> {
    process::until("all processes of the benchmark are gone", || {
        let left = processes(name, dirs);
        left.iter()
            .for_each(|pid| process::signal(*pid, Signal::KILL));
        Ok(left.is_empty())
    })?;
    // The newest first: mounts may lie upon each other.
    for mount in mounts(dirs).iter().rev() {
        unmount(mount.as_str(), UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {mount}"))?;
    }
    for bridge in bridges {
        if Utf8Path::new("/sys/class/net").join(bridge).exists() {
            process::run(process::command("ip").args(["link", "delete", bridge]))?;
        }
    }
    if stage::systemd() {
        // Otherwise systemd would go on to believe that the slice is there. It may know of none.
        let stop = &format!("{name}.slice");
        let _ = process::run(process::command("systemctl").args(["stop", stop]));
    }
    // The deepest first.
    for cgroup in cgroups(name).iter().rev() {
        // A process that was just killed may still be counted.
        process::until(&format!("{cgroup} is removed"), || {
            Ok(fs::remove_dir(cgroup).is_ok() || !cgroup.exists())
        })?;
    }
    // Known by what is in the directories.
    for file in files.iter().filter(|file| file.exists()) {
        fs::remove_file(file).with_context(|| format!("cannot remove {file}"))?;
    }
    for dir in dirs.iter().filter(|dir| dir.exists()) {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {dir}"))?;
    }
    Ok(())
}

/// Those with one of the directories in their arguments, and those in a cgroup with the name.
fn processes(name: &str, dirs: &[Utf8PathBuf]) -> Vec<u32> {
    let ours = |line: &str| dirs.iter().any(|dir| line.contains(&format!("{dir}/")));
    let mut pids: Vec<u32> = process::all()
        .into_iter()
        .filter(|process| ours(&process.line))
        .map(|process| process.pid)
        .collect();
    for cgroup in cgroups(name) {
        let list = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        pids.extend(list.lines().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    pids
}

/// Mount points below the directories, oldest first.
fn mounts(dirs: &[Utf8PathBuf]) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| dirs.iter().any(|dir| Utf8Path::new(point).starts_with(dir)))
        .map(str::to_owned)
        .collect()
}

/// Cgroups whose path has the name in it, in all hierarchies, parents first.
fn cgroups(name: &str) -> Vec<Utf8PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![Utf8PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = todo.pop() {
        for entry in dir.read_dir_utf8().into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.path().as_str().contains(name) {
                    found.push(entry.path().to_owned());
                }
                todo.push(entry.into_path());
            }
        }
    }
    found.sort();
    found
}
