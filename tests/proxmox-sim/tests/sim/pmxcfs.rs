//! pmxcfs as processes see it: mounted. Needs root and `/dev/fuse`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::sync::Barrier;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_proxmox_sim::pmxcfs::{Cluster, Pmxcfs, Tree};
use rustix::io::Errno;
use serde_json::Value;

use crate::house::can_mount;

struct Mounted {
    dir: tempfile::TempDir,
    pmxcfs: Option<Pmxcfs>,
}

impl Mounted {
    /// `None` where nothing can be mounted.
    fn new() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut house = Self { dir, pmxcfs: None };
        house.mount();
        Some(house)
    }

    fn mount(&mut self) {
        self.pmxcfs = None;
        let tree = Tree::open(&self.path("config.db")).unwrap();
        let nodes = [("pve1", "10.0.0.1"), ("pve2", "10.0.0.2")];
        let cluster = Cluster {
            node: "pve1".into(),
            name: Some("house".into()),
            nodes: BTreeMap::from(nodes.map(|(name, ip)| (name.into(), ip.into()))),
        };
        let pmxcfs = Pmxcfs::mount(tree, cluster, &self.path("pve")).unwrap();
        self.pmxcfs = Some(pmxcfs);
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        let path = self.dir.path().join(name);
        Utf8PathBuf::try_from(path).unwrap()
    }

    fn pve(&self, path: &str) -> Utf8PathBuf {
        self.path("pve").join(path)
    }

    fn set_quorate(&self, quorate: bool) {
        self.pmxcfs.as_ref().unwrap().tree().set_quorate(quorate);
        // The kernel believes for a second what it knows.
        #[allow(clippy::disallowed_methods, reason = "there is no event to wait for")]
        std::thread::sleep(Duration::from_millis(1100));
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.pve(name)).unwrap()).unwrap()
    }
}

fn reserve(path: &Utf8Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o640).open(path)
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().and_then(|e| Errno::from_io_error(&e))
}

#[test]
fn configurations_are_reserved_and_replaced() {
    let Some(mut house) = Mounted::new() else {
        return;
    };
    let conf = house.pve("nodes/pve1/lxc/100.conf");
    reserve(&conf)
        .unwrap()
        .write_all(b"lock: create\n")
        .unwrap();
    for other in [
        "nodes/pve1/lxc",
        "nodes/pve2/lxc",
        "nodes/pve1/qemu-server",
        "lxc",
    ] {
        let path = house.pve(other).join("100.conf");
        assert_eq!(errno(reserve(&path)), Some(Errno::EXIST), "{other}");
    }
    // Also without O_EXCL.
    let elsewhere = house.pve("nodes/pve2/lxc/100.conf");
    assert_eq!(errno(File::create(elsewhere)), Some(Errno::EXIST));

    let mut reader = File::open(&conf).unwrap();
    let temporary = house.pve("nodes/pve1/lxc/100.conf.tmp.1");
    fs::write(&temporary, "arch: amd64\n").unwrap();
    fs::rename(&temporary, &conf).unwrap();
    assert_eq!(
        fs::read_to_string(house.pve("lxc/100.conf")).unwrap(),
        "arch: amd64\n"
    );
    let mut old = String::new();
    reader.read_to_string(&mut old).unwrap();
    assert_eq!(old, "lock: create\n", "who has it open reads what it was");

    let foreign = house.pve("nodes/pve2/lxc/101.conf");
    fs::write(&foreign, "arch: amd64\n").unwrap();
    fs::write(&temporary, "x").unwrap();
    let onto = fs::rename(&temporary, house.pve("nodes/pve1/lxc/101.conf"));
    assert_eq!(errno(onto), Some(Errno::EXIST));

    house.mount();
    assert_eq!(fs::read_to_string(&conf).unwrap(), "arch: amd64\n");
    let list = house.json(".vmlist");
    assert_eq!(list["ids"]["100"]["node"], "pve1");
    assert_eq!(list["ids"]["101"]["node"], "pve2");
    fs::remove_file(&conf).unwrap();
    reserve(&house.pve("nodes/pve1/qemu-server/100.conf")).unwrap();
}

#[test]
fn one_of_many_wins() {
    let Some(house) = Mounted::new() else { return };
    let barrier = Barrier::new(8);
    let winners: usize = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|number| {
                let dir = ["nodes/pve1/lxc", "nodes/pve2/lxc"][number % 2];
                let (path, barrier) = (house.pve(dir).join("100.conf"), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    usize::from(reserve(&path).is_ok())
                })
            })
            .collect();
        tries.into_iter().map(|won| won.join().unwrap()).sum()
    });
    assert_eq!(winners, 1);
}

#[test]
fn owners_and_modes_are_those_of_pmxcfs() {
    let Some(house) = Mounted::new() else { return };
    fs::write(house.pve("user.cfg"), "").unwrap();
    fs::write(house.pve("priv/token.cfg"), "").unwrap();
    let mode = |path: &str| {
        let stat = fs::symlink_metadata(house.pve(path)).unwrap();
        assert_eq!(stat.uid(), 0);
        (stat.gid(), stat.mode() & 0o7777)
    };
    let gid = mode("user.cfg").0;
    assert_ne!(gid, 0);
    for (path, wanted) in [
        ("user.cfg", 0o640),
        ("priv", 0o700),
        ("priv/token.cfg", 0o600),
        ("nodes/pve1/lxc", 0o755),
        ("local", 0o755),
        (".members", 0o440),
    ] {
        assert_eq!(mode(path), (gid, wanted), "{path}");
    }
    let chmod =
        |path: &str, mode| fs::set_permissions(house.pve(path), fs::Permissions::from_mode(mode));
    chmod("user.cfg", 0o640).unwrap();
    chmod("priv/token.cfg", 0o600).unwrap();
    assert_eq!(errno(chmod("user.cfg", 0o600)), Some(Errno::PERM));
    assert_eq!(errno(chmod("priv/token.cfg", 0o640)), Some(Errno::PERM));
    let chown = std::os::unix::fs::chown(house.pve("user.cfg"), Some(1), None);
    assert_eq!(errno(chown), Some(Errno::PERM));
}

#[test]
fn what_pmxcfs_does_not_know_fails() {
    let Some(house) = Mounted::new() else { return };
    let (file, other) = (house.pve("a"), house.pve("b"));
    fs::write(&file, "x").unwrap();
    assert_eq!(errno(fs::hard_link(&file, &other)), Some(Errno::PERM));
    assert_eq!(errno(symlink(&file, &other)), Some(Errno::NOSYS));
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    let cwd = rustix::fs::CWD;
    let renamed =
        rustix::fs::renameat_with(cwd, file.as_std_path(), cwd, other.as_std_path(), flags);
    assert_eq!(renamed, Err(Errno::INVAL));
    let many = vec![0u8; (1 << 20) + 1];
    assert_eq!(errno(fs::write(&other, &many)), Some(Errno::FBIG));
    fs::write(&other, &many[1..]).unwrap();
    // Locks are the kernel's, and syncing is nothing.
    let held = File::open(&file).unwrap();
    held.try_lock().unwrap();
    assert!(File::open(&file).unwrap().try_lock().is_err());
    held.sync_all().unwrap();
}

#[test]
fn nothing_is_written_without_quorum() {
    let Some(house) = Mounted::new() else { return };
    let conf = house.pve("nodes/pve1/lxc/100.conf");
    fs::write(&conf, "arch: amd64\n").unwrap();
    assert_eq!(house.json(".members")["cluster"]["quorate"], 1);
    house.set_quorate(false);
    let members = house.json(".members");
    assert_eq!(members["cluster"]["quorate"], 0);
    assert_eq!(members["nodelist"]["pve1"]["online"], 1);
    assert_eq!(members["nodelist"]["pve2"]["online"], 0);
    let link = fs::symlink_metadata(house.pve("local")).unwrap();
    assert_eq!(
        link.mode() & 0o200,
        0,
        "this is how Proxmox asks for quorum"
    );
    let access = Some(Errno::ACCESS);
    assert_eq!(
        errno(reserve(&house.pve("nodes/pve1/lxc/101.conf"))),
        access
    );
    assert_eq!(errno(fs::write(&conf, "x")), access);
    assert_eq!(errno(fs::remove_file(&conf)), access);
    assert_eq!(errno(fs::rename(&conf, house.pve("x"))), access);
    assert_eq!(errno(fs::create_dir(house.pve("x"))), access);
    assert_eq!(fs::read_to_string(&conf).unwrap(), "arch: amd64\n");
    house.set_quorate(true);
    fs::remove_file(&conf).unwrap();
}

#[test]
fn the_root_has_links_and_made_up_files() {
    let Some(house) = Mounted::new() else { return };
    let mut names: Vec<_> = fs::read_dir(house.path("pve"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let wanted = [
        ".clusterlog",
        ".debug",
        ".members",
        ".rrd",
        ".version",
        ".vmlist",
        "local",
        "lxc",
        "nodes",
        "openvz",
        "priv",
        "qemu-server",
    ];
    assert_eq!(names, wanted);
    let target = |name: &str| fs::read_link(house.pve(name)).unwrap();
    assert_eq!(target("local").to_str(), Some("nodes/pve1"));
    assert_eq!(target("lxc").to_str(), Some("nodes/pve1/lxc"));
    assert!(house.json(".version")["starttime"].as_u64().unwrap() > 0);
    assert_eq!(
        errno(fs::remove_file(house.pve("local"))),
        Some(Errno::ACCESS)
    );
}

#[test]
fn it_is_gone_when_it_is_dropped() {
    let Some(mut house) = Mounted::new() else {
        return;
    };
    house.pmxcfs = None;
    let entries = fs::read_dir(house.path("pve")).unwrap().count();
    assert_eq!(entries, 0);
    // A mount whose process was killed is taken away.
    house.mount();
    assert!(house.pve("local").is_symlink());
}
