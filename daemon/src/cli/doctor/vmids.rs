//! The numbers that pods' containers may have.

use camino::Utf8Path;
use nexcage_lxc::marked_as;

use super::finding::Finding;
use super::{Doctor, blocking};

const CHECK: &str = "vmids";

/// So many foreign guests are named.
const NAMED: usize = 5;

/// Whose a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// A pod's, of this node or of another one's nexcage.
    Pod,
    /// Somebody else's.
    Foreign,
}

/// A guest whose number is in the range.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guest {
    vmid: u32,
    node: String,
    /// `lxc` or `qemu-server`, as in the path of its configuration.
    kind: &'static str,
    owner: Owner,
}

/// Nothing where this is no node of Proxmox.
pub(super) async fn vmids(doctor: &Doctor) -> Vec<Finding> {
    let node = doctor.proxmox.clone();
    if !node.mounted {
        return Vec::new();
    }
    let (first, last) = (node.settings.vmids.first, node.settings.vmids.last);
    let guests = blocking(move || {
        let pve_dir = &node.settings.pve_dir;
        guests(pve_dir, &node.settings.lxc_path, &node.name)
    });
    let mut guests = guests.await.unwrap_or_default();
    guests.retain(|guest| (first..=last).contains(&guest.vmid));
    vec![judge(first, last, &guests)]
}

/// All guests of the cluster. Blocking.
fn guests(pve_dir: &Utf8Path, lxc_path: &Utf8Path, here: &str) -> Vec<Guest> {
    let mut guests = Vec::new();
    let nodes = pve_dir.join("nodes").read_dir_utf8();
    for node in nodes.into_iter().flatten().flatten() {
        for kind in ["lxc", "qemu-server"] {
            let files = node.path().join(kind).read_dir_utf8();
            for file in files.into_iter().flatten().flatten() {
                let name = file.file_name().strip_suffix(".conf");
                let Some(vmid) = name.and_then(|name| name.parse::<u32>().ok()) else {
                    continue;
                };
                let is_pod = kind == "lxc"
                    && match node.file_name() == here {
                        true => marked_as(&lxc_path.join(vmid.to_string())).is_some(),
                        // Its marker is on its own node; a tag is no proof, but a hint is enough here.
                        false => has_tag(file.path()),
                    };
                guests.push(Guest {
                    vmid,
                    node: node.file_name().to_owned(),
                    kind,
                    owner: if is_pod { Owner::Pod } else { Owner::Foreign },
                });
            }
        }
    }
    guests.sort_by_key(|guest| guest.vmid);
    guests
}

fn has_tag(conf: &Utf8Path) -> bool {
    let text = std::fs::read_to_string(conf).unwrap_or_default();
    // Snapshots follow behind the first section.
    let main = text.lines().take_while(|line| !line.starts_with('['));
    let mut tags = main.filter_map(|line| line.strip_prefix("tags:"));
    tags.any(|tags| tags.split([';', ',', ' ']).any(|tag| tag == "nexcage"))
}

/// Of the guests in the range.
fn judge(first: u32, last: u32, guests: &[Guest]) -> Finding {
    let all = u64::from(last.saturating_sub(first)) + 1;
    let taken = u64::try_from(guests.len()).unwrap_or(u64::MAX);
    let free = all.saturating_sub(taken);
    let foreign: Vec<&Guest> = guests
        .iter()
        .filter(|g| g.owner == Owner::Foreign)
        .collect();
    let numbers = format!(
        "{free} of {all} numbers from {first} to {last} are free, pods have {}",
        guests.len() - foreign.len()
    );
    if free == 0 {
        return Finding::failed(CHECK, numbers, "widen proxmox.vmids");
    }
    if !foreign.is_empty() {
        let named = foreign
            .iter()
            .take(NAMED)
            .map(|guest| format!("{} ({} on {})", guest.vmid, guest.kind, guest.node));
        let named: Vec<String> = named.collect();
        let more = foreign.len().saturating_sub(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        return Finding::warning(
            CHECK,
            format!("{numbers}; somebody else has {}{more}", named.join(", ")),
            "they are left alone; choose another range in proxmox.vmids",
        );
    }
    match free * 10 < all {
        true => Finding::warning(CHECK, numbers, "widen proxmox.vmids"),
        false => Finding::ok(CHECK, numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    fn guest(vmid: u32, owner: Owner) -> Guest {
        Guest {
            vmid,
            node: "pve1".into(),
            kind: "lxc",
            owner,
        }
    }

    #[test]
    fn ranges() {
        let pods = |count: u32| {
            (100..100 + count)
                .map(|n| guest(n, Owner::Pod))
                .collect::<Vec<_>>()
        };
        let free = judge(100, 199, &pods(10));
        assert_eq!(
            free.reason,
            "90 of 100 numbers from 100 to 199 are free, pods have 10"
        );
        assert_eq!(free.state, State::Ok);
        assert_eq!(judge(100, 199, &pods(91)).state, State::Warning);
        assert_eq!(judge(100, 199, &pods(100)).state, State::Failed);
        let foreign: Vec<Guest> = (100..107).map(|n| guest(n, Owner::Foreign)).collect();
        let foreign = judge(100, 199, &foreign);
        assert_eq!(foreign.state, State::Warning);
        assert!(
            foreign.reason.contains("104 (lxc on pve1) and 2 more"),
            "{foreign:?}"
        );
    }

    #[test]
    fn guests_of_the_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(dir.path()).unwrap();
        let (pve, lxc) = (base.join("pve"), base.join("lxc"));
        let conf = |path: &str, text: &str| {
            let path = pve.join("nodes").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        conf("pve1/lxc/900000.conf", "tags: k8s;nexcage\n");
        conf("pve1/lxc/900001.conf", "tags: k8s;nexcage\n");
        conf("pve1/lxc/900001.conf.tmp.1", "");
        conf("pve1/qemu-server/900002.conf", "tags: nexcage\n");
        conf(
            "pve2/lxc/900003.conf",
            "arch: amd64\ntags: k8s;nexcage;default\n",
        );
        conf(
            "pve2/lxc/900004.conf",
            "arch: amd64\n[snap]\ntags: nexcage\n",
        );
        std::fs::create_dir_all(lxc.join("900000")).unwrap();
        std::os::unix::fs::symlink("a".repeat(64), lxc.join("900000/nexcage-sandbox")).unwrap();

        let found = guests(&pve, &lxc, "pve1");
        let owners: Vec<_> = found.iter().map(|g| (g.vmid, g.owner)).collect();
        let expected = [
            (900_000, Owner::Pod),
            (900_001, Owner::Foreign),
            (900_002, Owner::Foreign),
            (900_003, Owner::Pod),
            (900_004, Owner::Foreign),
        ];
        assert_eq!(owners, expected);
    }
}
