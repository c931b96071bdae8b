//! What is on the machine and belongs to no pod.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use camino::Utf8Path;
use nexcage_lxc::LxcBackend;
use nexcage_sandbox::SandboxBackend;
use rusqlite::{Connection, OpenFlags};

use super::finding::Finding;
use super::{Doctor, blocking};
use crate::cli::human::short_id;
use crate::error::Chain;
use crate::runtime::{Paths, cgroup_tree, find_node, lxc_options};

const CHECK: &str = "leftovers";

/// So many are named.
const NAMED: usize = 5;

/// Things of sandboxes, by the sandbox's id.
pub(super) type Things = BTreeMap<String, BTreeSet<&'static str>>;

/// Looks for scopes, containers, network namespaces and attachments of sandboxes.
///
/// # Errors
///
/// What keeps it from looking.
pub(super) async fn look(doctor: &Doctor) -> Result<Things, String> {
    let mut things = Things::new();
    let mut add = |what, ids: Vec<String>| {
        for id in ids {
            things.entry(id).or_default().insert(what);
        }
    };
    for (what, backend) in backends(doctor)? {
        let ids = backend
            .leftovers()
            .await
            .map_err(|e| Chain(&e).to_string())?;
        add(what, ids.into_iter().map(|id| id.0).collect());
    }
    let paths = doctor.paths.clone();
    add(
        "network namespace",
        blocking(move || pinned(&paths)).await.unwrap_or_default(),
    );
    let attached = crate::runtime::cni(&doctor.config).cached().await;
    let attached = attached.map_err(|e| Chain(&e).to_string())?.into_iter();
    add(
        "network attachment",
        attached
            .map(|cached| cached.attachment.container_id)
            .collect(),
    );
    Ok(things)
}

/// A backend, and what it finds.
type Finder = (&'static str, Box<dyn SandboxBackend>);

/// Those that find sandboxes, also by their cgroups.
fn backends(doctor: &Doctor) -> Result<Vec<Finder>, String> {
    let config = &doctor.config;
    let node = find_node(config).map_err(|e| e.to_string())?;
    let cgroups = cgroup_tree(config, &node);
    let options = lxc_options(config, &doctor.paths).map_err(|e| Chain(&e).to_string())?;
    let plain = LxcBackend::new(options.clone(), cgroups.clone());
    let mut all: Vec<Finder> = vec![("container or cgroup", Box::new(plain))];
    if doctor.proxmox.configured || doctor.proxmox.mounted {
        let proxmox = doctor.proxmox.backend(options, cgroups);
        let proxmox = proxmox.map_err(|e| Chain(&e).to_string())?;
        all.push(("Proxmox container or cgroup", Box::new(proxmox)));
    }
    Ok(all)
}

/// Pods whose network namespaces are pinned. Blocking.
fn pinned(paths: &Paths) -> Vec<String> {
    let entries = paths.netns_dir().read_dir_utf8();
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| paths.pod_of_netns(entry.file_name()).map(str::to_owned))
        .collect()
}

/// Pods on record, for when no daemon can be asked. Blocking.
///
/// # Errors
///
/// If the database is there and cannot be read.
pub(super) fn on_record(database: &Utf8Path) -> Result<HashSet<String>, String> {
    if !database.exists() {
        return Ok(HashSet::new());
    }
    let read = || -> rusqlite::Result<HashSet<String>> {
        let database = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut statement = database.prepare("SELECT id FROM pods")?;
        let ids = statement.query_map([], |row| row.get(0))?;
        ids.collect()
    };
    read().map_err(|error| format!("{database} cannot be read: {error}"))
}

/// What belongs to nobody.
pub(super) fn without(mut things: Things, known: &HashSet<String>) -> Things {
    things.retain(|id, _| !known.contains(id));
    things
}

/// Of what belongs to nobody.
pub(super) fn judge(left: &Result<Things, String>, daemon_runs: bool) -> Finding {
    let left = match left {
        Ok(left) => left,
        Err(error) => {
            return Finding::warning(
                CHECK,
                format!("cannot look for them: {error}"),
                "see the checks above",
            );
        }
    };
    if left.is_empty() {
        return Finding::ok(CHECK, "there is nothing that belongs to no pod");
    }
    let named = left.iter().take(NAMED).map(|(id, whats)| {
        let whats: Vec<&str> = whats.iter().copied().collect();
        format!("{} ({})", short_id(id), whats.join(", "))
    });
    let named: Vec<String> = named.collect();
    let more = left.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let remedy = match daemon_runs {
        true => "the daemon removes them in its next round; journalctl -u nexcage says why not",
        false => "systemctl start nexcage: a start removes them",
    };
    Finding::warning(
        CHECK,
        format!(
            "{} {} to no pod: {}{more}",
            left.len(),
            if left.len() == 1 {
                "sandbox belongs"
            } else {
                "sandboxes belong"
            },
            named.join(", ")
        ),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    fn things(ids: &[&str]) -> Things {
        let whats = || BTreeSet::from(["network namespace"]);
        ids.iter().map(|id| ((*id).to_owned(), whats())).collect()
    }

    #[test]
    fn what_a_pod_has_is_not_left_over() {
        let known = HashSet::from(["a".to_owned()]);
        let left = without(things(&["a", "b"]), &known);
        assert_eq!(left.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(
            judge(&Ok(without(left, &HashSet::from(["b".to_owned()]))), true).state,
            State::Ok
        );
    }

    #[test]
    fn leftovers_are_named() {
        let finding = judge(&Ok(things(&["a", "b", "c", "d", "e", "f", "g"])), false);
        assert_eq!(finding.state, State::Warning);
        assert!(
            finding
                .reason
                .starts_with("7 sandboxes belong to no pod: a (network namespace), ")
        );
        assert!(finding.reason.ends_with(" and 2 more"));
        assert!(finding.remedy.unwrap().contains("systemctl start"));
        assert_eq!(judge(&Err("no".into()), true).state, State::Warning);
    }

    #[tokio::test]
    async fn the_database_is_read_without_a_daemon() {
        let fixture = crate::runtime::Fixture::new().await;
        let pod = fixture.run("web", |_| {}).await;
        let database = fixture.runtime.paths.database();
        assert_eq!(on_record(&database).unwrap(), HashSet::from([pod.id()]));
        assert!(
            on_record(Utf8Path::new("/no/such/state.db"))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn pinned_namespaces_are_pods() {
        let dir = tempfile::tempdir().unwrap();
        let netns = camino::Utf8PathBuf::try_from(dir.path().to_owned()).unwrap();
        let id = "ab".repeat(32);
        for name in [
            format!("nexcage-{id}"),
            "nexcage-x".to_owned(),
            format!("cni-{id}"),
        ] {
            std::fs::write(netns.join(name), "").unwrap();
        }
        let mut config = nexcage_config::Config::default();
        config.sandbox.netns_dir = nexcage_config::AbsolutePath::new(netns).unwrap();
        assert_eq!(pinned(&Paths::new(&config)), [id]);
    }
}
