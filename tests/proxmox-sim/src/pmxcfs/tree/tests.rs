use camino::Utf8PathBuf;
use proptest::prelude::*;

use super::super::names::GuestType;
use super::*;

struct House {
    dir: tempfile::TempDir,
    tree: Tree,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = open(&dir);
        let mut house = Self { dir, tree };
        for path in [
            "nodes",
            "nodes/a",
            "nodes/a/lxc",
            "nodes/a/qemu-server",
            "nodes/b",
            "nodes/b/lxc",
            "priv",
            "priv/lock",
        ] {
            house.mkdir(path).unwrap();
        }
        house
    }

    fn restart(&mut self) {
        self.tree = open(&self.dir);
    }

    fn at(&self, path: &str) -> (u64, String) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.tree.resolve(dir).unwrap(), name.to_owned())
    }

    fn create(&mut self, path: &str) -> Result<u64> {
        let (dir, name) = self.at(path);
        self.tree.create(dir, &name)
    }

    fn mkdir(&mut self, path: &str) -> Result<u64> {
        let (dir, name) = self.at(path);
        self.tree.mkdir(dir, &name)
    }

    fn remove(&mut self, path: &str) -> Result<()> {
        let (dir, name) = self.at(path);
        self.tree.remove(dir, &name)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let ((dir, name), (to_dir, to_name)) = (self.at(from), self.at(to));
        self.tree.rename(dir, &name, to_dir, &to_name)
    }

    fn write(&mut self, path: &str, text: &str) -> Result<()> {
        let inode = self.tree.resolve(path).unwrap();
        self.tree.write(inode, 0, text.as_bytes())
    }

    fn text(&self, path: &str) -> Result<String> {
        let data = self.tree.data(self.tree.resolve(path)?)?;
        Ok(String::from_utf8(data.to_vec()).unwrap())
    }

    fn guests(&self) -> Vec<(u32, String, GuestType)> {
        let guests = self.tree.guests().0.iter();
        guests
            .map(|(vmid, (guest, _))| (*vmid, guest.node.clone(), guest.kind))
            .collect()
    }
}

fn open(dir: &tempfile::TempDir) -> Tree {
    let file = Utf8PathBuf::try_from(dir.path().join("config.db")).unwrap();
    Tree::open(&file).unwrap()
}

#[test]
fn a_vmid_is_unique_over_nodes_and_types() {
    let mut house = House::new();
    house.create("nodes/a/lxc/100.conf").unwrap();
    for path in [
        "nodes/a/lxc/100.conf",
        "nodes/a/qemu-server/100.conf",
        "nodes/b/lxc/100.conf",
    ] {
        assert_eq!(house.create(path), Err(Errno::EXIST), "{path}");
    }
    house.create("nodes/b/lxc/101.conf").unwrap();
    house.create("nodes/b/lxc/100.conf.tmp.1").unwrap();
    assert_eq!(house.guests().len(), 2);
    house.remove("nodes/a/lxc/100.conf").unwrap();
    house.create("nodes/a/qemu-server/100.conf").unwrap();
    let guests = house.guests();
    assert_eq!(guests[0], (100, "a".into(), GuestType::Qemu));
}

#[test]
fn a_rename_onto_ones_own_configuration_overwrites() {
    let mut house = House::new();
    house.create("nodes/a/lxc/100.conf").unwrap();
    house.write("nodes/a/lxc/100.conf", "old").unwrap();
    house.create("nodes/a/lxc/100.conf.tmp.1").unwrap();
    house.write("nodes/a/lxc/100.conf.tmp.1", "new").unwrap();
    house
        .rename("nodes/a/lxc/100.conf.tmp.1", "nodes/a/lxc/100.conf")
        .unwrap();
    assert_eq!(house.text("nodes/a/lxc/100.conf").unwrap(), "new");
    assert_eq!(house.text("nodes/a/lxc/100.conf.tmp.1"), Err(Errno::NOENT));
    assert_eq!(house.guests(), [(100, "a".into(), GuestType::Lxc)]);
}

#[test]
fn a_rename_onto_an_id_that_is_elsewhere_fails() {
    let mut house = House::new();
    house.create("nodes/b/lxc/100.conf").unwrap();
    house.create("nodes/a/lxc/101.conf").unwrap();
    house.create("nodes/a/lxc/x").unwrap();
    for from in ["nodes/a/lxc/101.conf", "nodes/a/lxc/x"] {
        let renamed = house.rename(from, "nodes/a/lxc/100.conf");
        assert_eq!(renamed, Err(Errno::EXIST), "{from}");
    }
    // This is how a guest migrates.
    house
        .rename("nodes/b/lxc/100.conf", "nodes/a/lxc/100.conf")
        .unwrap();
    let node = |guest: &(u32, String, GuestType)| guest.1.clone();
    assert_eq!(
        house.guests().iter().map(node).collect::<Vec<_>>(),
        ["a", "a"]
    );
}

#[test]
fn nothing_changes_without_quorum() {
    let mut house = House::new();
    house.create("nodes/a/lxc/100.conf").unwrap();
    house.write("nodes/a/lxc/100.conf", "text").unwrap();
    let inode = house.tree.resolve("nodes/a/lxc/100.conf").unwrap();
    house.tree.set_quorate(false);
    assert_eq!(house.create("nodes/a/lxc/101.conf"), Err(Errno::ACCESS));
    assert_eq!(house.mkdir("nodes/c"), Err(Errno::ACCESS));
    assert_eq!(house.write("nodes/a/lxc/100.conf", "x"), Err(Errno::ACCESS));
    assert_eq!(house.tree.truncate(inode, 0), Err(Errno::ACCESS));
    assert_eq!(house.tree.set_mtime(inode, 5), Err(Errno::ACCESS));
    assert_eq!(house.remove("nodes/a/lxc/100.conf"), Err(Errno::ACCESS));
    let renamed = house.rename("nodes/a/lxc/100.conf", "nodes/a/lxc/102.conf");
    assert_eq!(renamed, Err(Errno::ACCESS));
    assert_eq!(house.text("nodes/a/lxc/100.conf").unwrap(), "text");
    house.tree.set_quorate(true);
    house.remove("nodes/a/lxc/100.conf").unwrap();
}

#[test]
fn files_have_a_limit() {
    let mut house = House::new();
    let inode = house.create("big").unwrap();
    let all = vec![b'x'; usize::try_from(MAX_FILE).unwrap()];
    house.tree.write(inode, 0, &all).unwrap();
    assert_eq!(house.tree.write(inode, MAX_FILE, b"x"), Err(Errno::FBIG));
    assert_eq!(house.tree.truncate(inode, MAX_FILE + 1), Err(Errno::FBIG));
    assert_eq!(house.tree.write(inode, u64::MAX, b"x"), Err(Errno::FBIG));
    assert_eq!(house.tree.stat(inode).unwrap().size, MAX_FILE);
}

#[test]
fn directories_must_be_empty() {
    let mut house = House::new();
    assert_eq!(house.remove("nodes"), Err(Errno::NOTEMPTY));
    assert_eq!(house.rename("nodes", "x"), Err(Errno::NOTEMPTY));
    house.mkdir("empty").unwrap();
    assert_eq!(house.rename("empty", "nodes"), Err(Errno::NOTEMPTY));
    house.rename("empty", "other").unwrap();
    house.remove("other").unwrap();
    assert_eq!(house.mkdir(".."), Err(Errno::ACCESS));
}

#[test]
fn locks_are_held() {
    let mut house = House::new();
    let lock = house.mkdir("priv/lock/file-user_cfg").unwrap();
    assert_eq!(house.mkdir("priv/lock/file-user_cfg"), Err(Errno::EXIST));
    assert_eq!(house.tree.set_mtime(lock, 0), Err(Errno::ACCESS));
    let renamed = house.rename("priv/lock/file-user_cfg", "priv/lock/x");
    assert_eq!(renamed, Err(Errno::ACCESS));
    // As if it had been made long ago.
    let later = now() + LATER;
    house.tree.set_mtime(lock, later).unwrap();
    assert_eq!(house.tree.stat(lock).unwrap().mtime, later);
    house.remove("priv/lock/file-user_cfg").unwrap();
}

const LATER: u32 = 5;

#[test]
fn everything_is_there_after_a_restart() {
    let mut house = House::new();
    house.create("nodes/a/lxc/100.conf").unwrap();
    house.write("nodes/a/lxc/100.conf", "text").unwrap();
    house.create("gone").unwrap();
    house.remove("gone").unwrap();
    house.create("x").unwrap();
    house.rename("x", "y").unwrap();
    let before = house.tree.resolve("nodes/a/lxc/100.conf").unwrap();
    house.restart();
    assert_eq!(house.text("nodes/a/lxc/100.conf").unwrap(), "text");
    assert_eq!(house.tree.resolve("nodes/a/lxc/100.conf").unwrap(), before);
    assert_eq!(house.text("gone"), Err(Errno::NOENT));
    assert_eq!(house.text("y").unwrap(), "");
    assert_eq!(house.create("nodes/b/lxc/100.conf"), Err(Errno::EXIST));
    let fresh = house.create("nodes/b/lxc/101.conf").unwrap();
    assert!(fresh > before, "an inode is never used twice at a time");
}

/// A change that may or may not be allowed.
#[derive(Clone, Debug)]
enum Change {
    Create(String),
    Mkdir(String),
    Write(String, String),
    Remove(String),
    Rename(String, String),
    Quorum(bool),
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        ("[ab]", "lxc|qemu-server", 100..104u32)
            .prop_map(|(node, dir, vmid)| format!("nodes/{node}/{dir}/{vmid}.conf")),
        "nodes/[ab]/lxc/[xy]",
        "[xy]",
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        path().prop_map(Change::Create),
        path().prop_map(Change::Mkdir),
        (path(), ".{0,4}").prop_map(|(path, text)| Change::Write(path, text)),
        path().prop_map(Change::Remove),
        (path(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        any::<bool>().prop_map(Change::Quorum),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn ids_stay_unique_and_disk_and_memory_agree(changes in proptest::collection::vec(change(), 0..40)) {
        let mut house = House::new();
        for change in changes {
            let known = |house: &House, path: &str| {
                house.tree.resolve(path.rsplit_once('/').map_or("", |(dir, _)| dir)).is_ok()
            };
            match change {
                Change::Create(path) if known(&house, &path) => drop(house.create(&path)),
                Change::Mkdir(path) if known(&house, &path) => drop(house.mkdir(&path)),
                Change::Write(path, text) if house.tree.resolve(&path).is_ok() => drop(house.write(&path, &text)),
                Change::Remove(path) if known(&house, &path) => drop(house.remove(&path)),
                Change::Rename(from, to) if known(&house, &from) && known(&house, &to) => drop(house.rename(&from, &to)),
                Change::Quorum(quorate) => house.tree.set_quorate(quorate),
                _ => {}
            }
        }
        let picture = |house: &House| {
            let entries = house.tree.entries.keys();
            let mut all: Vec<_> = entries
                .map(|inode| (house.tree.path(*inode), house.tree.data(*inode).map(<[u8]>::to_vec).ok()))
                .collect();
            all.sort();
            all
        };
        let (before, guests) = (picture(&house), house.guests());
        // Each configuration is a guest, and each guest has one.
        let files: Vec<_> = before.iter().filter(|(_, data)| data.is_some()).collect();
        let mut ids: Vec<_> = files.iter().filter_map(|(path, _)| guest_of(path)).map(|(vmid, _)| vmid).collect();
        ids.sort_unstable();
        prop_assert_eq!(ids, guests.iter().map(|guest| guest.0).collect::<Vec<_>>());
        house.restart();
        prop_assert_eq!(picture(&house), before);
        prop_assert_eq!(house.guests(), guests);
    }
}
