//! Changes of the tree.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::super::names::{Guest, guest_of, is_lock};
use super::super::store::Row;
use super::{Entry, MAX_FILE, Node, Result, Tree, now};

/// A lock that nobody renewed may be broken after this, in seconds.
const LOCK_SECONDS: u32 = 120;

impl Tree {
    /// Makes an empty file.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is one, or if the name is that of a guest's configuration and the guest exists elsewhere, on any node and
    /// of any type; `EACCES` without quorum.
    pub fn create(&mut self, dir: u64, name: &str) -> Result<u64> {
        let path = self.new_path(dir, name)?;
        if let Some((vmid, guest)) = guest_of(&path) {
            self.not_elsewhere(vmid, &guest)?;
        }
        if self.children(dir)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        self.insert(dir, name, Node::File(Vec::new()))
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// `EEXIST`; `EACCES` without quorum.
    pub fn mkdir(&mut self, dir: u64, name: &str) -> Result<u64> {
        self.new_path(dir, name)?;
        if self.children(dir)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        self.insert(dir, name, Node::Dir(BTreeMap::new()))
    }

    /// Writes into a file, as one change.
    ///
    /// # Errors
    ///
    /// `EFBIG` beyond [`MAX_FILE`]; `EACCES` without quorum; `EEXIST` if the guest is elsewhere.
    pub fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        let mut data = self.changeable(inode, end)?;
        let (from, to) = (index(offset)?, index(end)?);
        if data.len() < to {
            data.resize(to, 0);
        }
        data[from..to].copy_from_slice(bytes);
        self.replace(inode, data)
    }

    /// Cuts a file off, or makes it longer.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn truncate(&mut self, inode: u64, size: u64) -> Result<()> {
        let mut data = self.changeable(inode, size)?;
        data.resize(index(size)?, 0);
        self.replace(inode, data)
    }

    /// Removes a file or an empty directory.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTEMPTY`; `EACCES` without quorum.
    pub fn remove(&mut self, dir: u64, name: &str) -> Result<()> {
        self.writable()?;
        let inode = self.lookup(dir, name)?;
        self.is_empty(inode)?;
        let guest = guest_of(&self.path(inode)).filter(|_| self.is_file(inode));
        self.store.remove(inode).map_err(|_| Errno::IO)?;
        self.detach(inode);
        self.entries.remove(&inode);
        self.version += 1;
        if let Some((vmid, _)) = guest {
            self.forget_guest(vmid);
        }
        Ok(())
    }

    /// Renames. What has the new name is replaced, if it is a file or an empty directory; only empty directories can be renamed.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the new name is that of a guest's configuration, the guest exists elsewhere, and it is not the one that is renamed;
    /// `EACCES` without quorum and for locks.
    pub fn rename(&mut self, dir: u64, name: &str, to_dir: u64, to_name: &str) -> Result<()> {
        self.writable()?;
        let inode = self.lookup(dir, name)?;
        let from = self.path(inode);
        let to = self.new_path(to_dir, to_name)?;
        let is_file = self.is_file(inode);
        let (old, new) = (guest_of(&from), guest_of(&to).filter(|_| is_file));
        if let Some((vmid, guest)) = &new
            && old.as_ref().is_none_or(|(old, _)| old != vmid)
        {
            self.not_elsewhere(*vmid, guest)?;
        }
        if !is_file && is_lock(&from) {
            return Err(Errno::ACCESS);
        }
        let replaced = self.children(to_dir)?.get(to_name).copied();
        if replaced == Some(inode) {
            return Ok(());
        }
        for entry in replaced.into_iter().chain([inode]) {
            self.is_empty(entry)?;
        }
        // The kernel does not even ask for such a thing.
        match (is_file, replaced.map(|replaced| self.is_file(replaced))) {
            (true, Some(false)) => return Err(Errno::ISDIR),
            (false, Some(true)) => return Err(Errno::NOTDIR),
            _ => {}
        }
        self.relink(inode, to_dir, to_name, replaced)?;
        if let Some((vmid, _)) = old.filter(|_| is_file) {
            self.forget_guest(vmid);
        }
        if let Some((vmid, guest)) = new {
            self.remember_guest(vmid, guest);
        }
        Ok(())
    }

    /// Sets the time. 0 asks to break a lock of the cluster, which works when it is old enough.
    ///
    /// # Errors
    ///
    /// `EACCES` without quorum, and for a lock that is held.
    pub fn set_mtime(&mut self, inode: u64, mtime: u32) -> Result<()> {
        self.writable()?;
        let entry = self.entries.get(&inode).ok_or(Errno::NOENT)?;
        let is_dir = matches!(entry.node, Node::Dir(_));
        if is_dir && is_lock(&self.path(inode)) && mtime < entry.mtime {
            if mtime != 0 || now().saturating_sub(entry.mtime) <= LOCK_SECONDS {
                return Err(Errno::ACCESS);
            }
            let (dir, name) = (entry.parent, entry.name.clone());
            return self.remove(dir, &name);
        }
        let mut row = self.row(inode)?;
        row.mtime = mtime;
        self.store.put(&row, None).map_err(|_| Errno::IO)?;
        self.entries
            .entry(inode)
            .and_modify(|entry| entry.mtime = mtime);
        self.version += 1;
        Ok(())
    }

    fn writable(&self) -> Result<()> {
        self.quorate.then_some(()).ok_or(Errno::ACCESS)
    }

    /// The path that a new entry would have.
    fn new_path(&self, dir: u64, name: &str) -> Result<String> {
        self.writable()?;
        self.children(dir)?;
        if matches!(name, "" | "." | "..") {
            return Err(Errno::ACCESS);
        }
        Ok(format!("{}/{name}", self.path(dir)))
    }

    fn not_elsewhere(&self, vmid: u32, guest: &Guest) -> Result<()> {
        match self.guests.get(&vmid) {
            Some((known, _)) if known != guest => Err(Errno::EXIST),
            _ => Ok(()),
        }
    }

    /// The contents of a file that may be changed up to `end`.
    fn changeable(&self, inode: u64, end: u64) -> Result<Vec<u8>> {
        self.writable()?;
        if end > MAX_FILE {
            return Err(Errno::FBIG);
        }
        let data = self.data(inode)?.to_vec();
        if let Some((vmid, guest)) = guest_of(&self.path(inode)) {
            self.not_elsewhere(vmid, &guest)?;
        }
        Ok(data)
    }

    fn is_empty(&self, inode: u64) -> Result<()> {
        match &self.entries.get(&inode).ok_or(Errno::NOENT)?.node {
            Node::Dir(children) if !children.is_empty() => Err(Errno::NOTEMPTY),
            _ => Ok(()),
        }
    }

    fn insert(&mut self, parent: u64, name: &str, node: Node) -> Result<u64> {
        self.version += 1;
        let inode = self.version;
        let entry = Entry {
            parent,
            name: name.to_owned(),
            mtime: now(),
            node,
        };
        let row = row(inode, &entry);
        self.store.put(&row, None).map_err(|_| Errno::IO)?;
        self.entries.insert(inode, entry);
        if let Some(children) = self.children_mut(parent) {
            children.insert(name.to_owned(), inode);
        }
        if let (true, Some((vmid, guest))) = (self.is_file(inode), guest_of(&self.path(inode))) {
            self.remember_guest(vmid, guest);
        }
        Ok(inode)
    }

    fn replace(&mut self, inode: u64, data: Vec<u8>) -> Result<()> {
        let mut row = self.row(inode)?;
        row.mtime = now();
        row.data = Some(data.clone());
        self.store.put(&row, None).map_err(|_| Errno::IO)?;
        if let Some(entry) = self.entries.get_mut(&inode) {
            entry.mtime = row.mtime;
            entry.node = Node::File(data);
        }
        self.version += 1;
        if let Some((vmid, guest)) = guest_of(&self.path(inode)) {
            self.remember_guest(vmid, guest);
        }
        Ok(())
    }

    fn relink(&mut self, inode: u64, parent: u64, name: &str, replaced: Option<u64>) -> Result<()> {
        let mut row = self.row(inode)?;
        row.parent = parent;
        row.name = name.to_owned();
        row.mtime = now();
        self.store.put(&row, replaced).map_err(|_| Errno::IO)?;
        self.detach(inode);
        if let Some(replaced) = replaced {
            self.detach(replaced);
            self.entries.remove(&replaced);
        }
        if let Some(entry) = self.entries.get_mut(&inode) {
            entry.parent = parent;
            entry.name = name.to_owned();
            entry.mtime = row.mtime;
        }
        if let Some(children) = self.children_mut(parent) {
            children.insert(name.to_owned(), inode);
        }
        self.version += 1;
        Ok(())
    }

    /// Takes an entry out of its directory.
    fn detach(&mut self, inode: u64) {
        let Some(entry) = self.entries.get(&inode) else {
            return;
        };
        let (parent, name) = (entry.parent, entry.name.clone());
        if let Some(children) = self.children_mut(parent) {
            children.remove(&name);
        }
    }

    fn remember_guest(&mut self, vmid: u32, guest: Guest) {
        self.guests_version += 1;
        self.guests.insert(vmid, (guest, self.guests_version));
    }

    fn forget_guest(&mut self, vmid: u32) {
        if self.guests.remove(&vmid).is_some() {
            self.guests_version += 1;
        }
    }

    fn row(&self, inode: u64) -> Result<Row> {
        let entry = self.entries.get(&inode).ok_or(Errno::NOENT)?;
        Ok(row(inode, entry))
    }
}

fn row(inode: u64, entry: &Entry) -> Row {
    Row {
        inode,
        parent: entry.parent,
        mtime: entry.mtime,
        name: entry.name.clone(),
        data: match &entry.node {
            Node::File(data) => Some(data.clone()),
            Node::Dir(_) => None,
        },
    }
}

/// A position in a file, which is small.
fn index(offset: u64) -> Result<usize> {
    usize::try_from(offset).map_err(|_| Errno::FBIG)
}
