//! The tree of pmxcfs and its rules, without FUSE.
//!
//! The rules were read in pve-cluster 9.1.6 (`memdb.c`, `cfs-plug-memdb.c`) and are those of the reference, section 6. Each change is on disk
//! before it is in memory.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use camino::Utf8Path;
use rustix::io::Errno;

use super::names::{Guest, guest_of};
use super::store::{Row, Store};

mod change;
#[cfg(test)]
mod tests;

/// The inode of the root.
pub const ROOT: u64 = 1;

/// Inodes below this are for what is not in the tree: `.members` and the like.
pub const FIRST: u64 = 1000;

/// Longest file, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// The tree.
#[derive(Debug)]
pub struct Tree {
    entries: BTreeMap<u64, Entry>,
    guests: BTreeMap<u32, (Guest, u64)>,
    /// Grows with each change; also the source of inodes.
    version: u64,
    /// Grows with each change of `guests`.
    guests_version: u64,
    quorate: bool,
    store: Store,
}

#[derive(Clone, Debug)]
struct Entry {
    parent: u64,
    name: String,
    mtime: u32,
    node: Node,
}

#[derive(Clone, Debug)]
enum Node {
    Dir(BTreeMap<String, u64>),
    File(Vec<u8>),
}

/// What `stat` shows, apart from modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The inode.
    pub inode: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u32,
}

/// Why a tree cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the file system's contents cannot be read")]
pub struct OpenError(#[from] rusqlite::Error);

type Result<T> = std::result::Result<T, Errno>;

impl Tree {
    /// The tree kept in a file, or an empty one.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no such file.
    pub fn open(file: &Utf8Path) -> std::result::Result<Self, OpenError> {
        let store = Store::open(file)?;
        let rows = store.load()?;
        let root = Entry {
            parent: ROOT,
            name: String::new(),
            mtime: now(),
            node: Node::Dir(BTreeMap::new()),
        };
        let mut tree = Self {
            entries: BTreeMap::from([(ROOT, root)]),
            guests: BTreeMap::new(),
            version: FIRST,
            guests_version: 1,
            quorate: true,
            store,
        };
        tree.fill(rows);
        Ok(tree)
    }

    fn fill(&mut self, rows: Vec<Row>) {
        let links: Vec<_> = rows
            .iter()
            .map(|row| (row.parent, row.name.clone(), row.inode))
            .collect();
        for row in rows {
            self.version = self.version.max(row.inode + 1);
            let node = match row.data {
                Some(data) => Node::File(data),
                None => Node::Dir(BTreeMap::new()),
            };
            let entry = Entry {
                parent: row.parent,
                name: row.name,
                mtime: row.mtime,
                node,
            };
            self.entries.insert(row.inode, entry);
        }
        for (parent, name, inode) in links {
            if let Some(children) = self.children_mut(parent) {
                children.insert(name, inode);
            }
        }
        let files: Vec<u64> = self.entries.keys().copied().collect();
        for inode in files {
            if let (true, Some((vmid, guest))) = (self.is_file(inode), guest_of(&self.path(inode)))
            {
                self.guests.insert(vmid, (guest, self.guests_version));
            }
        }
    }

    /// Whether the tree can be changed.
    pub fn quorate(&self) -> bool {
        self.quorate
    }

    /// Takes quorum away or gives it back.
    pub fn set_quorate(&mut self, quorate: bool) {
        self.quorate = quorate;
    }

    /// Guests by VMID, with the version of their entry, and the version of the list.
    pub fn guests(&self) -> (&BTreeMap<u32, (Guest, u64)>, u64) {
        (&self.guests, self.guests_version)
    }

    /// Bytes and entries.
    pub fn usage(&self) -> (u64, u64) {
        let sizes = self.entries.values().map(|entry| match &entry.node {
            Node::File(data) => data.len() as u64,
            Node::Dir(_) => 0,
        });
        (sizes.sum(), self.entries.len() as u64)
    }

    /// The inode of a name in a directory.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`.
    pub fn lookup(&self, dir: u64, name: &str) -> Result<u64> {
        let children = self.children(dir)?;
        children.get(name).copied().ok_or(Errno::NOENT)
    }

    /// The inode of a path from the root.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`.
    pub fn resolve(&self, path: &str) -> Result<u64> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        parts.try_fold(ROOT, |dir, name| self.lookup(dir, name))
    }

    /// The path of an inode from the root, without a slash before it.
    pub fn path(&self, inode: u64) -> String {
        let mut path = String::new();
        let mut inode = inode;
        while inode != ROOT
            && let Some(entry) = self.entries.get(&inode)
        {
            path = match path.is_empty() {
                true => entry.name.clone(),
                false => format!("{}/{path}", entry.name),
            };
            inode = entry.parent;
        }
        path
    }

    /// What is known of an inode.
    ///
    /// # Errors
    ///
    /// `ENOENT`.
    pub fn stat(&self, inode: u64) -> Result<Stat> {
        let entry = self.entries.get(&inode).ok_or(Errno::NOENT)?;
        let (is_dir, size) = match &entry.node {
            Node::Dir(_) => (true, 0),
            Node::File(data) => (false, data.len() as u64),
        };
        Ok(Stat {
            inode,
            is_dir,
            size,
            mtime: entry.mtime,
        })
    }

    /// Names and inodes in a directory.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`.
    pub fn list(&self, dir: u64) -> Result<Vec<(String, u64)>> {
        let children = self.children(dir)?;
        Ok(children
            .iter()
            .map(|(name, inode)| (name.clone(), *inode))
            .collect())
    }

    /// What is in a file.
    ///
    /// # Errors
    ///
    /// `ENOENT`, also for a directory.
    pub fn data(&self, inode: u64) -> Result<&[u8]> {
        match &self.entries.get(&inode).ok_or(Errno::NOENT)?.node {
            Node::File(data) => Ok(data),
            Node::Dir(_) => Err(Errno::NOENT),
        }
    }

    fn is_file(&self, inode: u64) -> bool {
        let entry = self.entries.get(&inode);
        entry.is_some_and(|entry| matches!(entry.node, Node::File(_)))
    }

    fn children(&self, dir: u64) -> Result<&BTreeMap<String, u64>> {
        match &self.entries.get(&dir).ok_or(Errno::NOENT)?.node {
            Node::Dir(children) => Ok(children),
            Node::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn children_mut(&mut self, dir: u64) -> Option<&mut BTreeMap<String, u64>> {
        match &mut self.entries.get_mut(&dir)?.node {
            Node::Dir(children) => Some(children),
            Node::File(_) => None,
        }
    }
}

fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u32::try_from(now.as_secs()).unwrap_or(u32::MAX))
}
