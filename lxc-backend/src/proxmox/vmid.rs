//! Reserving a number for a pod's container.
//!
//! A number is reserved by two files that are made and never overwritten: the container's directory with our marker, which says on this
//! node that the number is about to be ours, and then its configuration, which no other guest of the cluster can have. What a crash
//! leaves between any two steps is found by the marker.

use std::io;
use std::ops::RangeInclusive;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_sandbox::SandboxId;

use super::confs::{ConfError, Confs};
use super::numbers::Numbers;
use crate::container::{Directory, marked_as, remove_if_empty};

/// Proxmox's smallest number for guests.
pub(crate) const SMALLEST: u32 = 100;

/// The largest number that can be in an interface's name: `veth<vmid>i<n>` and what Proxmox adds have 15 bytes.
pub(crate) const LARGEST: u32 = 99_999_999;

/// No number could be reserved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReserveError {
    /// All are taken.
    #[error(
        "all numbers from {first} to {last} are taken; widen proxmox.vmids, or remove what has them (pvesh get /cluster/resources --type vm)"
    )]
    Exhausted {
        /// First of the range.
        first: u32,
        /// Last of the range.
        last: u32,
    },
    /// A configuration could not be made.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// A directory could not be made.
    #[error("cannot make {path}")]
    Directory {
        /// Which.
        path: Utf8PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The numbers of this node's pods.
#[derive(Debug)]
pub(crate) struct Vmids {
    numbers: Numbers,
}

impl Vmids {
    /// Numbers of this range for pods of this node.
    pub(crate) fn new(range: RangeInclusive<u32>, node: &str) -> Self {
        Self {
            numbers: Numbers::new(range, node),
        }
    }

    /// Whether pods of this node may have this number.
    pub(crate) fn contains(&self, vmid: u32) -> bool {
        self.numbers.range().contains(&vmid)
    }

    /// Finds a free number, marks its directory, and makes its configuration with the text that `text` has for it. Blocks.
    pub(crate) fn reserve(
        &self,
        id: &SandboxId,
        lxc_path: &Utf8Path,
        confs: &Confs,
        text: impl Fn(u32) -> String,
    ) -> Result<u32, ReserveError> {
        while let Some(rested) = self.numbers.take_rested() {
            match try_one(rested.vmid, id, lxc_path, confs, &text) {
                Ok(true) => return Ok(rested.vmid),
                // Somebody else's by now.
                Ok(false) => {}
                Err(error) => {
                    self.numbers.return_rested(rested);
                    return Err(error);
                }
            }
        }
        for vmid in self.numbers.candidates() {
            if try_one(vmid, id, lxc_path, confs, &text)? {
                self.numbers.note_taken(vmid);
                return Ok(vmid);
            }
        }
        let range = self.numbers.range();
        Err(ReserveError::Exhausted {
            first: *range.start(),
            last: *range.end(),
        })
    }

    /// Nothing has this number any more.
    pub(crate) fn give_back(&self, vmid: u32) {
        if self.contains(vmid) {
            self.numbers.give_back(vmid);
        }
    }
}

/// Takes this number, if nobody has it. Blocks.
fn try_one(
    vmid: u32,
    id: &SandboxId,
    lxc_path: &Utf8Path,
    confs: &Confs,
    text: &impl Fn(u32) -> String,
) -> Result<bool, ReserveError> {
    // Somebody's who has not started it yet, perhaps: not even its directory is to be touched.
    if confs.path(vmid).exists() {
        return Ok(false);
    }
    let directory = Directory::new(lxc_path, &vmid.to_string(), id);
    let failed = |source| ReserveError::Directory {
        path: lxc_path.join(vmid.to_string()),
        source,
    };
    if !directory.claim().map_err(failed)? {
        return Ok(false);
    }
    nexcage_failpoint::hit("pve.directory-marked");
    let Err(error) = confs.create(vmid, &text(vmid)) else {
        nexcage_failpoint::hit("pve.conf-made");
        return Ok(true);
    };
    directory.give_up().map_err(failed)?;
    match error {
        ConfError::Taken { .. } => Ok(false),
        error => Err(error.into()),
    }
}

/// Numbers whose directories are marked as this sandbox's: one usually, several after crashes. Blocks.
pub(crate) fn marked(lxc_path: &Utf8Path, id: &SandboxId) -> io::Result<Vec<u32>> {
    let all = all_marked(lxc_path)?;
    let own = all.into_iter().filter(|(_, of)| of == id);
    Ok(own.map(|(vmid, _)| vmid).collect())
}

/// All numbers whose directories are marked, with their sandboxes, in order. Blocks.
pub(crate) fn all_marked(lxc_path: &Utf8Path) -> io::Result<Vec<(u32, SandboxId)>> {
    let mut found = Vec::new();
    for (vmid, directory) in numbered(lxc_path)? {
        if let Some(id) = marked_as(&directory) {
            found.push((vmid, id));
        }
    }
    found.sort();
    Ok(found)
}

impl Vmids {
    /// Removes directories of our numbers that a crash left empty and unmarked: they are nobody's. Blocks.
    pub(crate) fn sweep(&self, lxc_path: &Utf8Path, confs: &Confs) -> io::Result<()> {
        for (vmid, directory) in numbered(lxc_path)? {
            if self.contains(vmid) && !confs.path(vmid).exists() && marked_as(&directory).is_none()
            {
                remove_if_empty(&directory)?;
            }
        }
        Ok(())
    }
}

/// Directories whose name is a number as Proxmox writes it; none if there is no such directory.
fn numbered(lxc_path: &Utf8Path) -> io::Result<Vec<(u32, Utf8PathBuf)>> {
    let entries = match lxc_path.read_dir_utf8() {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(vmid) = entry.file_name().parse::<u32>()
            && vmid.to_string() == entry.file_name()
        {
            found.push((vmid, entry.into_path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::fake::FakePmxcfs;
    use std::collections::BTreeSet;
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    /// One node of a cluster of two.
    struct Node {
        _temp: tempfile::TempDir,
        base: Utf8PathBuf,
        pmxcfs: Arc<FakePmxcfs>,
        confs: Confs,
        vmids: Vmids,
    }

    impl Node {
        fn new(range: RangeInclusive<u32>) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let base = Utf8Path::from_path(temp.path()).unwrap().to_owned();
            fs::create_dir(base.join("lxc")).unwrap();
            let pmxcfs = Arc::new(FakePmxcfs::new(base.join("pve"), &["pve1", "pve2"]).unwrap());
            let confs = Confs::new(
                Arc::clone(&pmxcfs) as _,
                base.join("pve/nodes/pve1/lxc"),
                base.join("locks"),
            );
            let vmids = Vmids::new(range, "pve1");
            Self {
                _temp: temp,
                base,
                pmxcfs,
                confs,
                vmids,
            }
        }

        fn lxc(&self) -> Utf8PathBuf {
            self.base.join("lxc")
        }

        fn reserve(&self, id: &str) -> Result<u32, ReserveError> {
            self.vmids
                .reserve(&sandbox(id), &self.lxc(), &self.confs, |vmid| {
                    format!("hostname: {id}\nlxc.include: /run/{id}/backend/{vmid}.conf\n")
                })
        }

        fn release(&self, id: &str, vmid: u32) {
            self.confs.remove(vmid, &sandbox(id)).unwrap();
            let directory = Directory::new(&self.lxc(), &vmid.to_string(), &sandbox(id));
            directory.remove().unwrap();
            self.vmids.give_back(vmid);
        }

        /// Everything on the node and in the cluster, but for lock files.
        fn everything(&self) -> BTreeSet<String> {
            let mut found = BTreeSet::new();
            let mut pending = vec![self.lxc(), self.base.join("pve/nodes")];
            while let Some(directory) = pending.pop() {
                for entry in directory.read_dir_utf8().unwrap() {
                    let entry = entry.unwrap();
                    let content = fs::read_to_string(entry.path()).unwrap_or_default();
                    found.insert(format!("{} {content}", entry.path()));
                    if entry.file_type().unwrap().is_dir() {
                        pending.push(entry.into_path());
                    }
                }
            }
            found
        }
    }

    fn sandbox(id: &str) -> SandboxId {
        SandboxId(id.to_owned())
    }

    #[test]
    fn many_at_once_get_a_number_each() {
        let node = Node::new(1000..=1031);
        let mut numbers = BTreeSet::new();
        std::thread::scope(|scope| {
            let threads = (0..8).map(|thread| {
                let node = &node;
                scope.spawn(move || {
                    let pods = (0..4).map(|pod| node.reserve(&format!("{thread}-{pod}")).unwrap());
                    pods.collect::<Vec<_>>()
                })
            });
            for thread in threads.collect::<Vec<_>>() {
                numbers.extend(thread.join().unwrap());
            }
        });
        assert_eq!(numbers, (1000..=1031).collect());
        for (vmid, id) in all_marked(&node.lxc()).unwrap() {
            let text = fs::read_to_string(node.confs.path(vmid)).unwrap();
            assert!(text.starts_with(&format!("hostname: {id}\n")), "{text}");
            assert_eq!(marked(&node.lxc(), &id).unwrap(), [vmid]);
        }
    }

    #[test]
    fn two_nodes_never_have_the_same_number() {
        let node = Node::new(1000..=1007);
        let other = Node {
            _temp: tempfile::tempdir().unwrap(),
            base: node.base.join("other"),
            pmxcfs: Arc::clone(&node.pmxcfs),
            confs: Confs::new(
                Arc::clone(&node.pmxcfs) as _,
                node.base.join("pve/nodes/pve2/lxc"),
                node.base.join("other/locks"),
            ),
            vmids: Vmids::new(1000..=1007, "pve2"),
        };
        fs::create_dir_all(other.lxc()).unwrap();
        let mut numbers = Vec::new();
        std::thread::scope(|scope| {
            let threads = [&node, &other].map(|node| {
                scope.spawn(move || {
                    let pods = (0..4).map(|pod| node.reserve(&format!("{pod}")).unwrap());
                    pods.collect::<Vec<_>>()
                })
            });
            for thread in threads {
                numbers.extend(thread.join().unwrap());
            }
        });
        numbers.sort_unstable();
        assert_eq!(numbers, (1000..=1007).collect::<Vec<_>>());
    }

    #[test]
    fn what_others_have_is_passed_over_and_stays() {
        let node = Node::new(1000..=1005);
        let pve = node.base.join("pve/nodes");
        let theirs = "hostname: theirs\n";
        fs::write(pve.join("pve1/lxc/1000.conf"), theirs).unwrap();
        fs::write(pve.join("pve2/lxc/1001.conf"), theirs).unwrap();
        fs::write(pve.join("pve2/qemu-server/1002.conf"), theirs).unwrap();
        fs::create_dir(node.lxc().join("1003")).unwrap();
        fs::write(node.lxc().join("1003/config"), theirs).unwrap();
        fs::create_dir(node.lxc().join("1004")).unwrap();
        let marker = node.lxc().join("1004/nexcage-sandbox");
        std::os::unix::fs::symlink("another", marker).unwrap();
        // Made by their Proxmox, and empty yet.
        fs::create_dir(node.lxc().join("1000")).unwrap();
        let before = node.everything();

        assert_eq!(node.reserve("a").unwrap(), 1005);
        let error = node.reserve("b").unwrap_err().to_string();
        assert!(
            error.contains("all numbers from 1000 to 1005 are taken"),
            "{error}"
        );
        node.release("a", 1005);
        assert_eq!(node.everything(), before);
    }

    #[test]
    fn without_quorum_nothing_is_left() {
        let node = Node::new(1000..=1005);
        let before = node.everything();
        node.pmxcfs.set_quorate(false).unwrap();
        let error = node.reserve("a").unwrap_err();
        assert!(error.to_string().contains("no quorum"), "{error}");
        assert_eq!(node.everything(), before);
        node.pmxcfs.set_quorate(true).unwrap();
        node.reserve("a").unwrap();
    }

    #[test]
    fn without_the_cluster_file_system_nothing_is_left() {
        let node = Node::new(1000..=1005);
        fs::remove_dir_all(node.base.join("pve/nodes/pve1")).unwrap();
        let before = node.everything();
        let error = node.reserve("a").unwrap_err().to_string();
        assert!(error.contains("pve-cluster"), "{error}");
        assert_eq!(node.everything(), before);
    }

    #[test]
    fn a_number_that_was_given_back_is_not_the_next_one() {
        let node = Node::new(1000..=1009);
        let mut numbers = Vec::new();
        for _ in 0..10 {
            let vmid = node.reserve("a").unwrap();
            node.release("a", vmid);
            numbers.push(vmid);
        }
        // For want of others, the one that has rested longest.
        assert_eq!(node.reserve("a").unwrap(), numbers[0]);
        numbers.sort_unstable();
        assert_eq!(numbers, (1000..=1009).collect::<Vec<_>>());
    }

    #[test]
    fn one_pod_after_the_other_needs_few_numbers() {
        let mut node = Node::new(1000..=1099);
        node.vmids.numbers.rest_for(Duration::ZERO);
        let other = node.reserve("other").unwrap();
        let mut numbers = BTreeSet::new();
        for _ in 0..20 {
            let vmid = node.reserve("a").unwrap();
            node.release("a", vmid);
            numbers.insert(vmid);
        }
        assert_eq!(numbers.len(), 1, "{numbers:?}");
        assert!(!numbers.contains(&other));

        // Without quorum nothing is forgotten.
        node.pmxcfs.set_quorate(false).unwrap();
        node.reserve("a").unwrap_err();
        node.pmxcfs.set_quorate(true).unwrap();
        let vmid = node.reserve("a").unwrap();
        assert!(numbers.contains(&vmid));
        node.release("a", vmid);
        // Somebody else has taken it meanwhile.
        fs::write(node.confs.path(vmid), "hostname: theirs\n").unwrap();
        assert!(!numbers.contains(&node.reserve("a").unwrap()));
    }

    #[test]
    fn a_range_of_none_has_none() {
        #[allow(clippy::reversed_empty_ranges, reason = "that is the point")]
        let node = Node::new(1001..=1000);
        assert!(matches!(
            node.reserve("a"),
            Err(ReserveError::Exhausted { .. })
        ));
    }

    #[test]
    fn what_a_crash_left_unmarked_is_swept_and_nothing_else() {
        let node = Node::new(1000..=1005);
        let theirs = node.base.join("pve/nodes/pve1/lxc/1001.conf");
        fs::write(theirs, "hostname: theirs\n").unwrap();
        let ours = node.reserve("a").unwrap();
        for name in ["999", "1001", "web", "01003"] {
            fs::create_dir(node.lxc().join(name)).unwrap();
        }
        fs::create_dir_all(node.lxc().join("1002/rootfs")).ok();
        let before = node.everything();
        let free = (1000..=1005)
            .find(|n| ![1001, 1002, ours].contains(n))
            .unwrap();
        fs::create_dir(node.lxc().join(free.to_string())).unwrap();
        node.vmids.sweep(&node.lxc(), &node.confs).unwrap();
        assert_eq!(node.everything(), before);
    }
}
