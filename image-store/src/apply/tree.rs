//! The directories of the image as a container would see them, and finding one's way in them.
//!
//! A name that an entry gives for its directory is followed like a path in a container: through
//! the layers below, and through symbolic links, which never lead out of the root. Directories
//! that exist in lower layers alone are made in the layer being written, with the owner, mode,
//! time and attributes they have there, because overlayfs shows those of the uppermost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::{ApplyError, Doing};
use super::path::Components;
use super::sys::{self, Attributes};

/// Symbolic links followed for one path; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// Components looked up for one path, `..` of symbolic links included.
const MAX_STEPS: usize = 4096;

/// A directory of the merged view.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it is in the layer being written.
    pub(super) upper: Option<OwnedFd>,
    /// Where it is in the layers below, uppermost first; only those that show through.
    pub(super) lowers: Vec<OwnedFd>,
}

/// What a name in a directory of the merged view is.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    Directory(Node),
    Symlink(Vec<u8>),
    Other,
}

/// A directory that entries are put into.
#[derive(Debug)]
pub(super) struct Parent {
    path: Components,
    /// In the layer being written.
    pub(super) dir: OwnedFd,
    /// What it shows of the layers below, once somebody asked.
    lowers: Option<Vec<OwnedFd>>,
    pub(super) inode: u64,
    /// Its time of modification, which putting entries into it must not change.
    mtime: (i64, u32),
}

/// The layer being written and the layers below.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    pub(super) root: BorrowedFd<'a>,
    /// Uppermost first; none if `root` holds the merged view itself.
    lowers: &'a [OwnedFd],
    /// Whether whiteouts and opaque marks of overlayfs mean something in `root`.
    pub(super) overlay: bool,
    max_depth: usize,
    /// The directory of the last entry: the next one is mostly its neighbour.
    current: Option<Parent>,
    /// Directories made because an entry needed them.
    pub(super) made: u64,
}

impl<'a> Tree<'a> {
    pub(super) fn new(
        root: BorrowedFd<'a>,
        lowers: &'a [OwnedFd],
        overlay: bool,
        max_depth: usize,
    ) -> Self {
        Self {
            root,
            lowers,
            overlay,
            max_depth,
            current: None,
            made: 0,
        }
    }

    /// The directory `path`, made if need be. `entry` is for errors.
    pub(super) fn parent(
        &mut self,
        entry: &[u8],
        path: &Components,
    ) -> Result<&mut Parent, ApplyError> {
        let parent = match self.current.take() {
            Some(current) if current.path == *path => current,
            before => {
                if let Some(before) = before {
                    before.leave(entry)?;
                }
                let (dir, lowers) = match self.direct(path) {
                    Some(dir) => (dir, None),
                    None => {
                        let node = self.walk(entry, path, true)?;
                        let Some(Node {
                            upper: Some(dir),
                            lowers,
                        }) = node
                        else {
                            return Err(ApplyError::refused(entry, "its directory is missing"));
                        };
                        (dir, Some(lowers))
                    }
                };
                let stat = sys::fstat(&dir).doing(entry, "read its directory")?;
                Parent {
                    path: path.clone(),
                    dir,
                    lowers,
                    inode: stat.stx_ino,
                    mtime: Attributes::of(&stat).mtime,
                }
            }
        };
        Ok(self.current.insert(parent))
    }

    /// Ends work in the current directory: its time of modification is what it was.
    pub(super) fn leave(&mut self, entry: &[u8]) -> Result<(), ApplyError> {
        match self.current.take() {
            Some(current) => current.leave(entry),
            None => Ok(()),
        }
    }

    /// The directory `path` if all of it is in the layer being written and no link is on the way.
    pub(super) fn direct(&self, path: &Components) -> Option<OwnedFd> {
        let joined = match path.is_empty() {
            true => b".".to_vec(),
            false => path.join(&b'/'),
        };
        // Whatever goes wrong here, walking finds out and says so.
        rustix::fs::openat2(
            self.root,
            joined,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
        .ok()
    }

    /// What `name` in the directory `path` is; [`Found::Nothing`] if there is no such directory.
    pub(super) fn find(
        &mut self,
        entry: &[u8],
        path: &Components,
        name: &[u8],
    ) -> Result<Found, ApplyError> {
        const DOING: &str = "look up the file";
        let Some(mut current) = self.current.take_if(|c| c.path == *path) else {
            return match self.walk(entry, path, false)? {
                Some(node) => self
                    .look(node.upper.as_ref(), &node.lowers, name)
                    .doing(entry, DOING),
                None => Ok(Found::Nothing),
            };
        };
        let lowers = match current.lowers.take() {
            Some(lowers) => lowers,
            None => (self.walk(entry, path, false)?).map_or_else(Vec::new, |node| node.lowers),
        };
        let found = self.look(Some(&current.dir), &lowers, name);
        current.lowers = Some(lowers);
        self.current = Some(current);
        found.doing(entry, DOING)
    }

    /// Marks the current directory opaque: it shows nothing of the layers below any more.
    pub(super) fn make_opaque(&mut self) -> Result<(), Errno> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        sys::set_opaque(&current.dir)?;
        current.lowers = Some(Vec::new());
        Ok(())
    }

    /// The directory `path` in the layer being written, if it is there.
    pub(super) fn existing(
        &mut self,
        entry: &[u8],
        path: &Components,
    ) -> Result<Option<OwnedFd>, ApplyError> {
        match self.direct(path) {
            Some(dir) => Ok(Some(dir)),
            None => Ok(self.walk(entry, path, false)?.and_then(|node| node.upper)),
        }
    }

    /// Follows `path` through the merged view. With `make`, what is missing is made and the
    /// node is in the layer being written; otherwise `None` says that something is missing.
    pub(super) fn walk(
        &mut self,
        entry: &[u8],
        path: &Components,
        make: bool,
    ) -> Result<Option<Node>, ApplyError> {
        // Components still to go, the next one last.
        let mut todo: Components = path.iter().rev().cloned().collect();
        // Where we are, without links; `at` is its node, or `None` if that must be found anew.
        let mut names = Components::new();
        let mut at = Some(self.root_node(entry)?);
        let (mut links, mut steps) = (0, 0);
        loop {
            steps += 1;
            if steps > MAX_STEPS {
                return Err(ApplyError::refused(entry, "its path has too many parts"));
            }
            let Some(here) = at.take() else {
                // Back to the root, and down again.
                todo.extend(names.drain(..).rev());
                at = Some(self.root_node(entry)?);
                continue;
            };
            let Some(name) = todo.pop() else {
                return Ok(Some(here));
            };
            match &name[..] {
                b"" | b"." => {
                    at = Some(here);
                    continue;
                }
                b".." => {
                    names.pop();
                    continue;
                }
                _ => {}
            }
            if names.len() >= self.max_depth {
                return Err(ApplyError::refused(entry, "its directory is too deep"));
            }
            match self
                .look(here.upper.as_ref(), &here.lowers, &name)
                .doing(entry, "look up its directory")?
            {
                Found::Directory(node) => {
                    at = Some(match make && node.upper.is_none() {
                        true => self
                            .copy_up(&here, &name, node)
                            .doing(entry, "copy its directory up")?,
                        false => node,
                    });
                    names.push(name);
                }
                Found::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ApplyError::refused(entry, "its path has too many links"));
                    }
                    if target.starts_with(b"/") {
                        names.clear();
                        at = Some(self.root_node(entry)?);
                    } else {
                        at = Some(here);
                    }
                    todo.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                }
                Found::Nothing if make => {
                    at = Some(
                        self.make_dir(&here, &name)
                            .doing(entry, "make its directory")?,
                    );
                    names.push(name);
                }
                Found::Nothing => return Ok(None),
                Found::Other => {
                    return Err(ApplyError::refused(
                        entry,
                        "its directory is not a directory",
                    ));
                }
            }
        }
    }

    fn root_node(&self, entry: &[u8]) -> Result<Node, ApplyError> {
        let open = || -> Result<Node, Errno> {
            Ok(Node {
                upper: Some(sys::open_dir(self.root, b".")?),
                lowers: match sys::is_opaque(self.root)? && self.overlay {
                    true => Vec::new(),
                    false => (self.lowers.iter())
                        .map(|lower| sys::open_dir(lower, b"."))
                        .collect::<Result<_, _>>()?,
                },
            })
        };
        open().doing(entry, "open the root of the layers")
    }

    /// What `name` is in a directory that is `upper` in the layer being written and `lowers` below.
    fn look(
        &self,
        upper: Option<&OwnedFd>,
        lowers: &[OwnedFd],
        name: &[u8],
    ) -> Result<Found, Errno> {
        if let Some(upper) = upper
            && let Some(stat) = sys::stat(upper, name)?
        {
            if self.overlay && sys::is_whiteout(&stat) {
                return Ok(Found::Nothing);
            }
            if !sys::is_dir(&stat) {
                return leaf(upper, name, &stat);
            }
            let dir = sys::open_dir(upper, name)?;
            let lowers = match self.overlay && !sys::is_opaque(&dir)? {
                true => below(lowers, name)?,
                false => Vec::new(),
            };
            return Ok(Found::Directory(Node {
                upper: Some(dir),
                lowers,
            }));
        }
        for (i, lower) in lowers.iter().enumerate() {
            let Some(stat) = sys::stat(lower, name)? else {
                continue;
            };
            if sys::is_whiteout(&stat) {
                break;
            }
            if !sys::is_dir(&stat) {
                return leaf(lower, name, &stat);
            }
            return Ok(Found::Directory(Node {
                upper: None,
                lowers: below(&lowers[i..], name)?,
            }));
        }
        Ok(Found::Nothing)
    }

    /// Makes a directory of lower layers in the layer being written.
    fn copy_up(&mut self, here: &Node, name: &[u8], node: Node) -> Result<Node, Errno> {
        let (Some(parent), Some(lower)) = (&here.upper, node.lowers.first()) else {
            return Err(Errno::NOENT);
        };
        let dir = keeping_mtime(parent, || sys::make_dir(parent, name))?;
        Attributes::of(&sys::fstat(lower)?).set(&dir, &sys::xattrs(lower)?)?;
        self.made += 1;
        Ok(Node {
            upper: Some(dir),
            lowers: node.lowers,
        })
    }

    /// Makes a directory that the image says nothing about: `rwxr-xr-x` of the caller, as
    /// every unpacker does.
    fn make_dir(&mut self, here: &Node, name: &[u8]) -> Result<Node, Errno> {
        let Some(parent) = &here.upper else {
            return Err(Errno::NOENT);
        };
        let dir = keeping_mtime(parent, || {
            // What is there can only be a whiteout.
            let replaced = sys::stat(parent, name)?.is_some();
            if replaced {
                sys::unlink(parent, name)?;
            }
            let dir = sys::make_dir(parent, name)?;
            if replaced {
                sys::set_opaque(&dir)?;
            }
            Ok(dir)
        })?;
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o755))?;
        self.made += 1;
        Ok(Node {
            upper: Some(dir),
            lowers: Vec::new(),
        })
    }
}

impl Parent {
    fn leave(self, entry: &[u8]) -> Result<(), ApplyError> {
        sys::set_mtime(&self.dir, self.mtime).doing(entry, "set the time of a directory")
    }
}

/// Does something in `dir` and gives it its time of modification back.
pub(super) fn keeping_mtime<T>(
    dir: impl AsFd,
    work: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let dir = dir.as_fd();
    let before = Attributes::of(&sys::fstat(dir)?).mtime;
    let out = work()?;
    sys::set_mtime(dir, before)?;
    Ok(out)
}

/// The directories `name` in `dirs` that overlayfs would merge.
fn below(dirs: &[OwnedFd], name: &[u8]) -> Result<Vec<OwnedFd>, Errno> {
    let mut merged = Vec::new();
    for dir in dirs {
        let Some(stat) = sys::stat(dir, name)? else {
            continue;
        };
        if !sys::is_dir(&stat) {
            break;
        }
        let found = sys::open_dir(dir, name)?;
        let last = sys::is_opaque(&found)?;
        merged.push(found);
        if last {
            break;
        }
    }
    Ok(merged)
}

fn leaf(dir: &OwnedFd, name: &[u8], stat: &rustix::fs::Statx) -> Result<Found, Errno> {
    if sys::file_type(stat) != rustix::fs::FileType::Symlink {
        return Ok(Found::Other);
    }
    let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(Found::Symlink(target.into_bytes()))
}
