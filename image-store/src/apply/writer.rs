//! Carrying out entries.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::archive::{Archive, Entry, Kind};
use super::error::{ApplyError, Doing, shown};
use super::path::{Components, Place, components, place};
use super::remove::Written;
use super::sys::{self, Attributes};
use super::tree::{Found, Node, Tree, keeping_mtime};
use super::{Applied, ApplyLimits};

/// Carries out the entries of one layer.
pub(super) struct Writer<'a> {
    tree: Tree<'a>,
    limits: &'a ApplyLimits,
    done: Applied,
    written: Written,
}

impl<'a> Writer<'a> {
    pub(super) fn new(tree: Tree<'a>, limits: &'a ApplyLimits) -> Self {
        Self {
            tree,
            limits,
            done: Applied::default(),
            written: Written::default(),
        }
    }

    /// Ends the work and says what was done.
    pub(super) fn finish(mut self) -> Result<Applied, ApplyError> {
        self.tree.leave(b".")?;
        self.done.inodes += self.tree.made;
        Ok(self.done)
    }

    /// Carries out one entry.
    pub(super) fn apply(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<'_>,
    ) -> Result<(), ApplyError> {
        match place(&entry.path, self.limits.max_depth)? {
            Place::Ignored => Ok(()),
            Place::Root => self.root(entry),
            Place::Whiteout { parent, name } => self.whiteout(entry, &parent, &name),
            Place::Opaque(path) => self.opaque(entry, &path),
            Place::Entry { parent, name } => self.put(entry, &parent, &name, archive),
        }
    }

    fn root(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        if entry.kind != Kind::Directory {
            return Err(ApplyError::refused(
                &entry.path,
                "the root can only be a directory",
            ));
        }
        self.tree.leave(&entry.path)?;
        attributes(entry)
            .set(self.tree.root, &allowed_xattrs(entry))
            .doing(&entry.path, "set the attributes of the root")
    }

    fn put(
        &mut self,
        entry: &Entry,
        parent: &Components,
        name: &[u8],
        archive: &mut Archive<'_>,
    ) -> Result<(), ApplyError> {
        match entry.kind {
            Kind::File => self.file(entry, parent, name, archive)?,
            Kind::Directory => self.directory(entry, parent, name)?,
            Kind::HardLink => self.hard_link(entry, parent, name)?,
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(ApplyError::refused(
                        &entry.path,
                        "the link has no target, or one with a NUL byte",
                    ));
                }
                self.node(entry, parent, name, |dir| {
                    rustix::fs::symlinkat(&entry.link[..], dir, name)
                })?;
            }
            Kind::CharDevice if entry.device == (0, 0) => {
                return Err(ApplyError::refused(
                    &entry.path,
                    "character device 0/0 is how overlayfs marks a removed file; layers say .wh.",
                ));
            }
            Kind::CharDevice => self.device(entry, parent, name, FileType::CharacterDevice)?,
            Kind::BlockDevice => self.device(entry, parent, name, FileType::BlockDevice)?,
            Kind::Fifo => self.device(entry, parent, name, FileType::Fifo)?,
        }
        let dir = self.tree.parent(&entry.path, parent)?.inode;
        self.written.insert(dir, name);
        Ok(())
    }

    fn file(
        &mut self,
        entry: &Entry,
        parent: &Components,
        name: &[u8],
        archive: &mut Archive<'_>,
    ) -> Result<(), ApplyError> {
        self.spend(&entry.path, entry.size)?;
        let dir = &self.tree.parent(&entry.path, parent)?.dir;
        let file = File::from(
            replacing(&mut self.written, dir, name, || create(dir, name))
                .doing(&entry.path, "create the file")?,
        );
        for segment in &entry.segments {
            let (mut at, end) = (segment.offset, segment.offset + segment.length);
            while at < end {
                let some = archive.content()?;
                let room = usize::try_from(end - at).unwrap_or(usize::MAX);
                let n = some.len().min(room);
                if n == 0 {
                    return Err(ApplyError::Read(std::io::ErrorKind::UnexpectedEof.into()));
                }
                file.write_all_at(&some[..n], at)
                    .doing(&entry.path, "write the file")?;
                archive.consume(n);
                at += n as u64;
            }
        }
        if entry.segments.last().map_or(0, |s| s.offset + s.length) < entry.size {
            file.set_len(entry.size)
                .doing(&entry.path, "set the length of the file")?;
        }
        attributes(entry)
            .set(&file, &allowed_xattrs(entry))
            .doing(&entry.path, "set the attributes of the file")?;
        self.count(&file).doing(&entry.path, "read the file")
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: &Components,
        name: &[u8],
    ) -> Result<(), ApplyError> {
        let overlay = self.tree.overlay;
        let dir = &self.tree.parent(&entry.path, parent)?.dir;
        let make = || -> Result<(OwnedFd, bool), Errno> {
            let replaced = match sys::stat(dir, name)? {
                Some(stat) if sys::is_dir(&stat) => return Ok((sys::open_dir(dir, name)?, false)),
                Some(_) => {
                    sys::unlink(dir, name)?;
                    true
                }
                None => false,
            };
            let made = sys::make_dir(dir, name)?;
            if replaced && overlay {
                // What was replaced hid a directory of the same name below; this one must too.
                sys::set_opaque(&made)?;
            }
            Ok((made, true))
        };
        let (made, new) = make().doing(&entry.path, "make the directory")?;
        attributes(entry)
            .set(&made, &allowed_xattrs(entry))
            .doing(&entry.path, "set the attributes of the directory")?;
        match new {
            true => self.count(&made).doing(&entry.path, "read the directory"),
            false => Ok(()),
        }
    }

    fn device(
        &mut self,
        entry: &Entry,
        parent: &Components,
        name: &[u8],
        kind: FileType,
    ) -> Result<(), ApplyError> {
        let device = match kind {
            FileType::Fifo => 0,
            _ => rustix::fs::makedev(entry.device.0, entry.device.1),
        };
        self.node(entry, parent, name, |dir| {
            rustix::fs::mknodat(dir, name, kind, Mode::empty(), device)
        })
    }

    /// Makes something that has no content, in place of what may be there.
    fn node(
        &mut self,
        entry: &Entry,
        parent: &Components,
        name: &[u8],
        make: impl Fn(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<(), ApplyError> {
        let dir = &self.tree.parent(&entry.path, parent)?.dir;
        replacing(&mut self.written, dir, name, || make(dir))
            .doing(&entry.path, "create the link or device")?;
        attributes(entry)
            .set_at(dir, name, entry.kind == Kind::Symlink)
            .doing(&entry.path, "set the attributes of the link or device")?;
        self.done.inodes += 1;
        Ok(())
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        parent: &Components,
        name: &[u8],
    ) -> Result<(), ApplyError> {
        let refused = |reason| ApplyError::refused(&entry.path, reason);
        let mut target_dir = components(&entry.link, self.limits.max_depth)
            .map_err(|_| refused("the target of the hard link is not a path below the root"))?;
        let target = target_dir
            .pop()
            .ok_or_else(|| refused("the target of the hard link is the root"))?;
        let source = self.link_target(entry, &target_dir, &target)?;
        let into = self.tree.parent(&entry.path, parent)?;
        let source_inode = sys::fstat(&source).doing(&entry.path, "read the target's directory")?;
        if (source_inode.stx_ino, &target[..]) == (into.inode, name) {
            return Err(refused("a hard link to itself"));
        }
        replacing(&mut self.written, &into.dir, name, || {
            rustix::fs::linkat(&source, &target[..], &into.dir, name, AtFlags::empty())
        })
        .doing(&entry.path, "create the hard link")
    }

    /// The directory of a hard link's target in the layer being written, with the target in it.
    fn link_target(
        &mut self,
        entry: &Entry,
        path: &Components,
        target: &[u8],
    ) -> Result<OwnedFd, ApplyError> {
        const MISSING: &str = "the target of the hard link is not in the image";
        let refused = |reason| ApplyError::refused(&entry.path, reason);
        if let Some(dir) = self.tree.direct(path)
            && let Some(stat) = sys::stat(&dir, target).doing(&entry.path, "look up the target")?
        {
            return match () {
                () if sys::is_dir(&stat) => {
                    Err(refused("the target of the hard link is a directory"))
                }
                () if self.tree.overlay && sys::is_whiteout(&stat) => Err(refused(MISSING)),
                () => Ok(dir),
            };
        }
        match self.tree.find(&entry.path, path, target)? {
            Found::Nothing => Err(refused(MISSING)),
            Found::Directory(_) => Err(refused("the target of the hard link is a directory")),
            Found::Symlink(_) | Found::Other => {
                let made = self.tree.walk(&entry.path, path, true)?;
                let Some((upper, lowers)) = made.and_then(|n| Some((n.upper?, n.lowers))) else {
                    return Err(refused(MISSING));
                };
                self.copy_up(entry, &lowers, &upper, target)?;
                Ok(upper)
            }
        }
    }

    /// Copies what is not a directory from the layers below, unless this layer has it: a link to it must be
    /// to a file of this layer, as when a container makes the link.
    fn copy_up(
        &mut self,
        entry: &Entry,
        lowers: &[OwnedFd],
        upper: &OwnedFd,
        name: &[u8],
    ) -> Result<(), ApplyError> {
        const DOING: &str = "copy the target of the hard link up";
        let path = &entry.path;
        if sys::stat(upper, name).doing(path, DOING)?.is_some() {
            return Ok(());
        }
        for lower in lowers {
            let Some(stat) = sys::stat(lower, name).doing(path, DOING)? else {
                continue;
            };
            let kind = sys::file_type(&stat);
            if kind == FileType::RegularFile {
                self.spend(path, stat.stx_size)?;
            }
            let attributes = Attributes::of(&stat);
            let copy = || -> std::io::Result<()> {
                match kind {
                    FileType::RegularFile => {
                        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        let mut from =
                            File::from(rustix::fs::openat(lower, name, flags, Mode::empty())?);
                        let mut to = File::from(create(upper, name)?);
                        std::io::copy(&mut from, &mut to)?;
                        return Ok(attributes.set(&to, &sys::xattrs(&from)?)?);
                    }
                    FileType::Symlink => {
                        let target = rustix::fs::readlinkat(lower, name, Vec::new())?;
                        rustix::fs::symlinkat(target, upper, name)?;
                    }
                    _ => {
                        let device = rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
                        rustix::fs::mknodat(upper, name, kind, Mode::empty(), device)?;
                    }
                }
                Ok(attributes.set_at(upper, name, kind == FileType::Symlink)?)
            };
            let up = keeping_mtime(upper, || Ok(copy())).doing(path, DOING)?;
            up.doing(path, DOING)?;
            self.done.inodes += 1;
            return Ok(());
        }
        Ok(())
    }

    /// Hides what lower layers have as `name`. What this layer itself put there stays (OCI image
    /// spec, "Whiteouts": only lower layers are meant).
    fn whiteout(
        &mut self,
        entry: &Entry,
        parent: &Components,
        name: &[u8],
    ) -> Result<(), ApplyError> {
        let path = &entry.path;
        if !self.tree.overlay {
            if let Some(dir) = self.tree.existing(path, parent)? {
                keeping_mtime(&dir, || self.written.prune(&dir, name))
                    .doing(path, "remove the file")?;
            }
            return Ok(());
        }
        let found = self.tree.find(path, parent, name)?;
        if matches!(found, Found::Nothing) {
            return Ok(());
        }
        let dir = &self.tree.parent(path, parent)?.dir;
        if self
            .written
            .prune(dir, name)
            .doing(path, "remove the file")?
        {
            return match found {
                Found::Directory(Node {
                    upper: Some(dir),
                    lowers,
                }) if !lowers.is_empty() => {
                    sys::set_opaque(dir).doing(path, "mark the directory opaque")
                }
                _ => Ok(()),
            };
        }
        // What this layer had there, it had only to hold whiteouts or the target of a link.
        if matches!(self.tree.find(path, parent, name)?, Found::Nothing) {
            return Ok(());
        }
        let dir = &self.tree.parent(path, parent)?.dir;
        sys::make_whiteout(dir, name).doing(path, "make the whiteout")?;
        self.done.inodes += 1;
        Ok(())
    }

    /// Hides everything lower layers have in the directory `dir`.
    fn opaque(&mut self, entry: &Entry, dir: &Components) -> Result<(), ApplyError> {
        let path = &entry.path;
        if !self.tree.overlay {
            if let Some(dir) = self.tree.existing(path, dir)? {
                (self.written.prune_all(&dir)).doing(path, "empty the directory")?;
            }
            return Ok(());
        }
        let Some(node) = self
            .tree
            .walk(path, dir, false)?
            .filter(|n| !n.lowers.is_empty())
        else {
            return Ok(());
        };
        let root = sys::fstat(self.tree.root)
            .doing(path, "read the root")?
            .stx_ino;
        let parent = self.tree.parent(path, dir)?;
        if parent.inode != root {
            (self.written.prune_all(&parent.dir)).doing(path, "empty the directory")?;
            return (self.tree.make_opaque()).doing(path, "mark the directory opaque");
        }
        // overlayfs does not look for the mark on the root itself.
        for lower in &node.lowers {
            for name in sys::names(lower).doing(path, "list the layers below")? {
                self.whiteout(entry, dir, &name)?;
            }
        }
        Ok(())
    }

    /// Takes `bytes` off what the layer may still write.
    fn spend(&mut self, entry: &[u8], bytes: u64) -> Result<(), ApplyError> {
        let sum = self.done.bytes.saturating_add(bytes);
        if sum > self.limits.max_bytes {
            return Err(ApplyError::Limit {
                entry: shown(entry),
                limit: self.limits.max_bytes,
                what: "bytes",
            });
        }
        self.done.bytes = sum;
        Ok(())
    }

    fn count(&mut self, new: impl AsFd) -> Result<(), Errno> {
        self.done.inodes += 1;
        self.done.allocated += sys::fstat(new)?.stx_blocks * 512;
        Ok(())
    }
}

fn attributes(entry: &Entry) -> Attributes {
    Attributes {
        uid: entry.uid,
        gid: entry.gid,
        mode: entry.mode,
        mtime: entry.mtime,
    }
}

/// The extended attributes that an image may set.
fn allowed_xattrs(entry: &Entry) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (allowed, others): (Vec<_>, Vec<_>) =
        (entry.xattrs.iter()).partition(|(name, _)| sys::xattr_allowed(name));
    for (name, _) in others {
        tracing::debug!(
            entry = shown(&entry.path),
            xattr = shown(name),
            "left out an extended attribute that images must not set"
        );
    }
    allowed.into_iter().cloned().collect()
}

fn create(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Makes something new as `name`; what is there makes room.
fn replacing<T>(
    written: &mut Written,
    dir: &OwnedFd,
    name: &[u8],
    make: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match make() {
        Err(Errno::EXIST) => {
            written.remove(dir, name)?;
            make()
        }
        other => other,
    }
}
