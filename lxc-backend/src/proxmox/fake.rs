//! A cluster file system without a cluster, for tests.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use camino::{Utf8Path, Utf8PathBuf};

use super::pmxcfs::{MountedPmxcfs, Pmxcfs, is_there, successor};

/// Directories of a node in which guests' configurations are.
const TYPES: [&str; 2] = ["lxc", "qemu-server"];

/// A directory with the rules of Proxmox's cluster file system: a number belongs to one guest, whatever its node and its type, and without
/// quorum nothing can be changed.
#[derive(Debug)]
pub struct FakePmxcfs {
    root: Utf8PathBuf,
    quorate: AtomicBool,
    /// Changes happen one after the other, as in a cluster.
    order: Mutex<()>,
}

impl FakePmxcfs {
    /// Makes the directories of these nodes below `root`; the first one is the local node.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn new(root: impl Into<Utf8PathBuf>, nodes: &[&str]) -> io::Result<Self> {
        let root = root.into();
        for node in nodes {
            for kind in TYPES {
                std::fs::create_dir_all(root.join("nodes").join(node).join(kind))?;
            }
        }
        let local = nodes.first().copied().unwrap_or_default();
        std::os::unix::fs::symlink(format!("nodes/{local}"), root.join("local"))?;
        let fake = Self::existing(root);
        fake.set_quorate(true)?;
        Ok(fake)
    }

    /// One that was made before, with quorum.
    pub fn existing(root: impl Into<Utf8PathBuf>) -> Self {
        Self {
            root: root.into(),
            quorate: AtomicBool::new(true),
            order: Mutex::default(),
        }
    }

    /// Gives the cluster its quorum, or takes it.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn set_quorate(&self, quorate: bool) -> io::Result<()> {
        self.quorate.store(quorate, Ordering::SeqCst);
        let quorate = u8::from(quorate);
        let members = format!(
            "{{\n\"nodename\": \"pve1\",\n\"version\": 4,\n\"cluster\": {{ \"name\": \"fake\", \"version\": 2, \"nodes\": 2, \"quorate\": {quorate} }},\n\"nodelist\": {{\n  \"pve1\": {{ \"id\": 1, \"online\": 1, \"ip\": \"127.0.0.1\"}}\n  }}\n}}\n"
        );
        std::fs::write(self.root.join(".members"), members)
    }

    /// Whether a guest has this file's number that is not this very file.
    fn taken(&self, path: &Utf8Path) -> io::Result<bool> {
        let Some(name) = path.file_name().filter(|name| name.ends_with(".conf")) else {
            return Ok(false);
        };
        for node in self.root.join("nodes").read_dir_utf8()? {
            let node = node?.into_path();
            for kind in TYPES {
                let other = node.join(kind).join(name);
                if other != path && other.exists() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn changing<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _order = self
            .order
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match self.quorate.load(Ordering::SeqCst) {
            true => change(),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    fn unless_taken(&self, path: &Utf8Path) -> io::Result<()> {
        match self.taken(path)? {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => Ok(()),
        }
    }
}

impl Pmxcfs for FakePmxcfs {
    fn create(&self, path: &Utf8Path, text: &str) -> io::Result<()> {
        self.changing(|| {
            self.unless_taken(path)?;
            MountedPmxcfs.create(path, text)
        })
    }

    fn read(&self, path: &Utf8Path) -> io::Result<Vec<u8>> {
        MountedPmxcfs.read(path)
    }

    fn replace(&self, path: &Utf8Path, text: &str) -> io::Result<()> {
        self.changing(|| {
            self.unless_taken(path)?;
            MountedPmxcfs.replace(path, text)
        })
    }

    fn remove(&self, path: &Utf8Path) -> io::Result<()> {
        match is_there(path) || is_there(&successor(path)) {
            true => self.changing(|| MountedPmxcfs.remove(path)),
            false => Ok(()),
        }
    }
}
