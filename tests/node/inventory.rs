//! Everything in the node that nexcage could leave behind.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};
use nexcage_tests::{process, wait};

use crate::node::PATIENCE;

/// Where nexcage, LXC, CNI and Proxmox keep files.
const DIRECTORIES: &[&str] = &[
    "/var/lib/nexcage",
    "/run/nexcage",
    "/var/lib/lxc",
    "/run/lxc",
    "/var/log/lxc",
    "/run/pve",
    "/var/lib/cni",
    "/run/netns",
    "/run/crun",
    "/run/cni",
];

/// Programs that run for pods.
const PROGRAMS: &[&str] = &["conmon", "crun", "lxc-start", "[lxc monitor]", "catatonit"];

/// What is there, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inventory(BTreeSet<String>);

impl Inventory {
    /// Looks.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let mut found = BTreeSet::new();
        let mut add = |kind: &str, lines: Vec<String>| {
            found.extend(lines.iter().map(|line| format!("{kind} {line}")));
        };
        add("mount", mounts("/proc/1/mountinfo")?);
        add(
            "dataset",
            said("zfs", &["list", "-H", "-o", "name", "-t", "all"])?,
        );
        add("cgroup", cgroups()?);
        add("unit", units()?);
        add("interface", names("/sys/class/net")?);
        for table in ["filter", "nat"] {
            add(table, said("iptables", &["--wait", "-t", table, "-S"])?);
        }
        add("process", processes());
        add("AppArmor profile", profiles()?);
        for directory in DIRECTORIES {
            add("path", paths(directory.into()));
        }
        found.retain(|line| !is_made_once(line));
        Ok(Self(found))
    }

    /// What has a word in its name, but for what the tests themselves need.
    pub(crate) fn naming(&self, word: &str) -> Vec<String> {
        let lines = self.0.iter().filter(|line| line.contains(word));
        lines
            .filter(|line| !line.contains("/opt/nexcage") && *line != "dataset tank/nexcage")
            .cloned()
            .collect()
    }

    /// What an earlier program has kept.
    pub(crate) fn read(file: &Utf8Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        Ok(Self(text.lines().map(str::to_owned).collect()))
    }

    /// Keeps it for a later program, even if the power fails at once.
    pub(crate) fn write(&self, file: &Utf8Path) -> anyhow::Result<()> {
        let lines: Vec<_> = self.0.iter().map(String::as_str).collect();
        fs::write(file, lines.join("\n"))
            .and_then(|()| fs::File::open(file)?.sync_all())
            .with_context(|| format!("cannot write {file}"))
    }

    /// Fails if there is more now. Waits a little, since a monitor ends a moment after what it watched.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let mut left = Vec::new();
        let gone = wait::until_true("nothing is left", PATIENCE, || {
            let now = Self::take()?;
            left = now.0.difference(&self.0).cloned().collect();
            Ok(left.is_empty())
        });
        gone.with_context(|| format!("left behind:\n  {}", left.join("\n  ")))
    }
}

/// What the first pod of its kind makes for all that follow.
fn is_made_once(line: &str) -> bool {
    // CNI's plugin for ports; what is in `CNI-HOSTPORT-DNAT` belongs to pods.
    let chains = line.starts_with("nat ")
        && line.contains("CNI-HOSTPORT-")
        && !line.starts_with("nat -A CNI-HOSTPORT-DNAT");
    // Profiles that crun has compiled, for as long as the machine runs.
    let compiled = line.starts_with("path /run/nexcage/oci/c/.cache");
    // Of the other storage driver.
    let overlay = line == "path /run/nexcage/idmap";
    // LXC's parents of all containers' cgroups that Proxmox starts by itself.
    let parents = [
        "cgroup /sys/fs/cgroup/lxc",
        "cgroup /sys/fs/cgroup/lxc.monitor",
        "cgroup /sys/fs/cgroup/lxc.pivot",
    ];
    chains || compiled || overlay || parents.contains(&line) || line == "path /var/lib/nexcage/logs"
}

/// The lines a program prints.
fn said(program: &str, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let text = process::run(program, arguments, PATIENCE)?.success()?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Mount points, but not those of sessions.
fn mounts(table: &str) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(table).with_context(|| format!("cannot read {table}"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| !point.starts_with("/run/user/"))
        // systemd gives some services credentials while they run.
        .filter(|point| !point.starts_with("/run/credentials/"))
        .map(str::to_owned)
        .collect())
}

/// Cgroups, but not those of the system's own services and of sessions, which come and go.
fn cgroups() -> anyhow::Result<Vec<String>> {
    let all = said("find", &["/sys/fs/cgroup", "-mindepth", "1", "-type", "d"])?;
    let of_the_system = |path: &str| {
        let own = ["/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/user.slice"];
        own.iter().any(|slice| path.starts_with(slice)) && !path.contains("nexcage-")
    };
    Ok(all
        .into_iter()
        .filter(|path| !of_the_system(path))
        .collect())
}

/// Scopes and what has failed, but not sessions.
fn units() -> anyhow::Result<Vec<String>> {
    let list = ["list-units", "--all", "--plain", "--no-legend", "--full"];
    let mut units = said("systemctl", &[&list[..], &["--type", "scope"]].concat())?;
    units.extend(said(
        "systemctl",
        &[&list[..], &["--state", "failed"]].concat(),
    )?);
    Ok(units
        .iter()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|unit| !unit.starts_with("session-"))
        .map(str::to_owned)
        .collect())
}

fn processes() -> Vec<String> {
    process::find(|command, _| {
        let program = command.split(' ').next().unwrap_or_default();
        PROGRAMS
            .iter()
            .any(|name| program.ends_with(name) || command.starts_with(name))
    })
    .into_iter()
    .map(|process| format!("{} {}", process.pid, process.command_line))
    .collect()
}

fn profiles() -> anyhow::Result<Vec<String>> {
    let file = "/sys/kernel/security/apparmor/profiles";
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn names(directory: &str) -> anyhow::Result<Vec<String>> {
    let entries = Utf8Path::new(directory)
        .read_dir_utf8()
        .with_context(|| format!("cannot read {directory}"))?;
    Ok(entries
        .flatten()
        .map(|entry| entry.file_name().to_owned())
        .collect())
}

/// Everything below a directory, but for what comes and goes.
fn paths(directory: Utf8PathBuf) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![directory];
    while let Some(directory) = todo.pop() {
        for entry in directory.read_dir_utf8().into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path().to_path_buf());
            }
            let name = entry.file_name();
            // SQLite makes and removes these as it likes; host-local remembers where it was.
            let comes_and_goes = name.ends_with("-wal")
                || name.ends_with("-shm")
                || name.starts_with("last_reserved_ip");
            if !comes_and_goes {
                found.push(entry.path().to_string());
            }
        }
    }
    found
}
