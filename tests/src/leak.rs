//! What a test has left on the real machine.
//!
//! Everything is found by the name of the test's machine or by an id that its daemon gave out, never by
//! comparing the whole host before and after: others may work on this host at the same time.

use std::collections::BTreeSet;
use std::fs;

use anyhow::bail;
use camino::{Utf8Path, Utf8PathBuf};

use crate::{Machine, process, proxmox, wait};

/// What was there at a time when nothing had to be there: usually after [`Machine::warm_up`].
#[derive(Clone, Debug)]
pub struct Baseline {
    paths: BTreeSet<Utf8PathBuf>,
    mounts: BTreeSet<String>,
    /// Processes that may run.
    expected: BTreeSet<i32>,
}

impl Baseline {
    /// Remembers what is there now.
    #[must_use]
    pub fn take(machine: &Machine) -> Self {
        Self {
            paths: paths_below(&[
                machine.root().to_path_buf(),
                machine.run_dir().to_path_buf(),
            ]),
            mounts: mounts(machine.name()).into_iter().collect(),
            expected: BTreeSet::new(),
        }
    }

    /// The same, where these processes of the test's own run on.
    #[must_use]
    pub fn beside(mut self, processes: &[i32]) -> Self {
        self.expected.extend(processes);
        self
    }

    /// Fails if there is more now than there was. The daemon may run.
    ///
    /// Waits a little, since a monitor ends a moment after what it watched.
    ///
    /// # Errors
    ///
    /// With a list of what is too much.
    pub fn check(&self, machine: &Machine) -> anyhow::Result<()> {
        let mut left = Vec::new();
        let gone = wait::until_true("nothing is left", 10, || {
            left = self.excess(machine)?;
            Ok(left.is_empty())
        });
        if gone.is_err() {
            bail!("left behind:\n  {}", left.join("\n  "));
        }
        Ok(())
    }

    fn excess(&self, machine: &Machine) -> anyhow::Result<Vec<String>> {
        let name = machine.name();
        let dirs = [
            machine.root().to_path_buf(),
            machine.run_dir().to_path_buf(),
        ];
        let mut left = Vec::new();

        let config = machine.config_file();
        let processes = process::find(|command, root| {
            // The daemon itself has its configuration file in its arguments, a simulated Proxmox its directory.
            let expected = [config.as_str(), proxmox::DIRECTORY];
            (command.contains(name) || root.contains(name))
                && !expected.iter().any(|word| command.contains(word))
        });
        left.extend(
            processes
                .iter()
                .filter(|p| !self.expected.contains(&p.pid))
                .map(|p| format!("process {} {}", p.pid, p.command_line)),
        );

        let new_mounts = mounts(name)
            .into_iter()
            .filter(|mount| !self.mounts.contains(mount));
        left.extend(new_mounts.map(|mount| format!("mount {mount}")));

        let new_paths = paths_below(&dirs)
            .into_iter()
            .filter(|path| !self.paths.contains(path));
        left.extend(
            new_paths
                .filter(|path| counts(machine, path))
                .map(|p| format!("path {p}")),
        );

        left.extend(
            interfaces_of_bridge(name)
                .iter()
                .map(|i| format!("interface {i}")),
        );
        left.extend(
            firewall_rules(name)?
                .iter()
                .map(|(table, rule)| format!("iptables -t {table}: {}", rule.join(" "))),
        );
        let ids = ids_in_files(&dirs);
        left.extend(
            cgroups(name, &ids)
                .iter()
                .map(|cgroup| format!("cgroup {cgroup}")),
        );
        Ok(left)
    }
}

/// Waits until no file or directory of the daemon is named after an id or a digest.
pub(crate) fn no_ids_are_left(machine: &Machine) -> anyhow::Result<()> {
    let dirs = [
        machine.root().join("state"),
        machine.lxc_dir(),
        machine.run_dir().to_path_buf(),
    ];
    let mut left = Vec::new();
    let gone = wait::until_true("no ids are left", 20, || {
        left = paths_below(&dirs)
            .into_iter()
            .filter(|path| has_id(path.as_str()))
            .collect();
        Ok(left.is_empty())
    });
    if gone.is_err() {
        let left: Vec<_> = left.iter().map(|path| path.as_str()).collect();
        bail!("left behind by the first pod:\n  {}", left.join("\n  "));
    }
    Ok(())
}

/// Whether a new path is something left behind.
fn counts(machine: &Machine, path: &Utf8Path) -> bool {
    // kubelet's, the test's and Proxmox's own.
    let ours = [
        machine.root().join("logs"),
        machine.temporary_directory(),
        machine.root().join(proxmox::DIRECTORY),
    ];
    if ours.iter().any(|dir| path.starts_with(dir)) {
        return false;
    }
    let name = path.file_name().unwrap_or_default();
    // SQLite makes and removes these as it likes; host-local remembers where it was.
    let comes_and_goes = name.ends_with("-wal")
        || name.ends_with("-shm")
        || name.starts_with("last_reserved_ip")
        || (name == "lock" && path.as_str().contains("/ipam/"))
        || path == machine.log_file();
    if comes_and_goes {
        return false;
    }
    // A directory that is there for all pods may be made with the first one.
    let shared_directory = path.is_dir() && !path.components().any(|part| has_id(part.as_str()));
    !shared_directory
}

fn has_id(text: &str) -> bool {
    !ids_in(text.as_bytes()).is_empty()
}

/// Everything below some directories. What vanishes while we look is not there.
fn paths_below(dirs: &[Utf8PathBuf]) -> BTreeSet<Utf8PathBuf> {
    let mut found = BTreeSet::new();
    let mut todo = dirs.to_vec();
    while let Some(dir) = todo.pop() {
        for entry in dir.read_dir_utf8().into_iter().flatten().flatten() {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir {
                todo.push(entry.path().to_path_buf());
            }
            found.insert(entry.path().to_path_buf());
        }
    }
    found
}

/// Mount points in this mount namespace that have to do with `name`, oldest first.
pub(crate) fn mounts(name: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter(|line| line.contains(name))
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| point.replace("\\040", " "))
        .collect()
}

/// Interfaces that are ports of the bridge `name`: the host's ends of pods' veth pairs.
fn interfaces_of_bridge(name: &str) -> Vec<String> {
    fs::read_dir(format!("/sys/class/net/{name}/brif"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Rules of iptables that mention `name`, as CNI plugins do in comments: the table, and
/// the words of the rule after `-A`.
pub(crate) fn firewall_rules(name: &str) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let mut found = Vec::new();
    for table in ["nat", "filter"] {
        let list = process::run("iptables", &["--wait", "-t", table, "-S"], 30)?.success()?;
        for rule in list.lines().filter(|line| line.contains(name)) {
            if let Some(rule) = rule.strip_prefix("-A ") {
                found.push((table.to_owned(), words(rule)));
            }
        }
    }
    Ok(found)
}

/// Splits a line as `iptables -S` writes it: words between spaces, or in double quotes with backslashes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.extend(characters.next()),
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    words
}

/// Directories of all cgroup hierarchies that carry the name or one of the ids, parents first.
pub(crate) fn cgroups(name: &str, ids: &BTreeSet<String>) -> Vec<Utf8PathBuf> {
    paths_below(&["/sys/fs/cgroup".into()])
        .into_iter()
        .filter(|path| path.is_dir())
        .filter(|path| {
            let relative = path.as_str();
            relative.contains(name)
                || ids_in(relative.as_bytes())
                    .iter()
                    .any(|id| ids.contains(id))
        })
        .collect()
}

/// Ids in the names of files and directories.
pub(crate) fn ids_below(dirs: &[Utf8PathBuf]) -> BTreeSet<String> {
    paths_below(dirs)
        .iter()
        .flat_map(|path| ids_in(path.as_str().as_bytes()))
        .collect()
}

/// Ids that the daemon ever knew: those in its log, its database and the names of its files. Digests
/// are among them; no cgroup is named after one.
fn ids_in_files(dirs: &[Utf8PathBuf]) -> BTreeSet<String> {
    let mut ids = ids_below(dirs);
    for path in paths_below(dirs) {
        let name = path.file_name().unwrap_or_default();
        let database = name.contains(".db") || name.contains(".sqlite");
        if (database || name == "daemon.log") && path.is_file() {
            ids.extend(ids_in(&fs::read(&path).unwrap_or_default()));
        }
    }
    ids
}

/// All ids in a text: runs of exactly 64 lower case hexadecimal digits.
fn ids_in(text: &[u8]) -> Vec<String> {
    text.split(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        .filter(|run| run.len() == 64)
        .map(|run| String::from_utf8_lossy(run).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_split_as_iptables_writes_them() {
        let line = r#"POSTROUTING -s 10.213.1.2/32 -m comment --comment "name: \"nxt0a1b2c\" id: \"ab\"" -j CNI-0f"#;
        let expected = [
            "POSTROUTING",
            "-s",
            "10.213.1.2/32",
            "-m",
            "comment",
            "--comment",
            "name: \"nxt0a1b2c\" id: \"ab\"",
            "-j",
            "CNI-0f",
        ];
        assert_eq!(words(line), expected);
    }

    #[test]
    fn ids_are_found_wherever_they_stand() {
        let id = "0123456789abcdef".repeat(4);
        let text = format!("/x/nexcage-{id}.scope/ct");
        assert_eq!(ids_in(text.as_bytes()), vec![id.clone()]);
        assert!(ids_in(format!("{id}0").as_bytes()).is_empty());
        assert!(ids_in(id.to_uppercase().as_bytes()).is_empty());
    }
}
