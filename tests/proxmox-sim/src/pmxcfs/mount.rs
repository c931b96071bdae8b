//! The mounted file system.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use camino::{Utf8Path, Utf8PathBuf};
use fuser::BackgroundSession;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::fuse::config;
use super::special::Cluster;
use super::tree::{ROOT, Tree};
use super::view::Fuse;

/// Debian's number for the group `www-data`, for a machine that lacks it.
const WWW_DATA: u32 = 33;

/// pmxcfs, mounted until it is dropped. Its contents stay.
pub struct Pmxcfs {
    tree: Arc<Mutex<Tree>>,
    at: Utf8PathBuf,
    session: Option<BackgroundSession>,
}

impl fmt::Debug for Pmxcfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pmxcfs")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Pmxcfs {
    /// Mounts a tree. A mount that an earlier process left there is taken away; directories that Proxmox makes are made.
    ///
    /// # Errors
    ///
    /// No right to mount, no `/dev/fuse`, no directory.
    pub fn mount(mut tree: Tree, cluster: Cluster, at: &Utf8Path) -> io::Result<Self> {
        make_directories(&mut tree, &cluster)?;
        // Whoever used it gets ENOTCONN anyway.
        let _ = unmount(at.as_std_path(), UnmountFlags::DETACH);
        std::fs::create_dir_all(at)?;
        let tree = Arc::new(Mutex::new(tree));
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let fuse = Fuse {
            tree: tree.clone(),
            cluster,
            started: since.map_or(0, |since| since.as_secs()),
            gid: www_data(),
            open: Mutex::default(),
        };
        let session = fuser::spawn_mount(fuse, at, &config())?;
        Ok(Self {
            tree,
            at: at.to_owned(),
            session: Some(session),
        })
    }

    /// Where it is mounted.
    pub fn at(&self) -> &Utf8Path {
        &self.at
    }

    /// The tree. While it is held, nobody can use the mount.
    pub fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pmxcfs {
    fn drop(&mut self) {
        // Lazily: a client that keeps a file open must not keep the mount.
        let _ = unmount(self.at.as_std_path(), UnmountFlags::DETACH);
        if let Some(session) = self.session.take() {
            drop(session);
        }
    }
}

fn make_directories(tree: &mut Tree, cluster: &Cluster) -> io::Result<()> {
    let mut make = |path: &str| -> Result<(), Errno> {
        let mut dir = ROOT;
        for name in path.split('/') {
            dir = match tree.lookup(dir, name) {
                Ok(inode) => inode,
                Err(_) => tree.mkdir(dir, name)?,
            };
        }
        Ok(())
    };
    make("priv/lock")?;
    for node in cluster.nodes.keys().chain([&cluster.node]) {
        for below in ["lxc", "qemu-server", "openvz", "priv"] {
            make(&format!("nodes/{node}/{below}"))?;
        }
    }
    Ok(())
}

fn www_data() -> u32 {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let mut lines = groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some("www-data")).then(|| fields.nth(1)?.parse().ok())?
    });
    lines.next().unwrap_or(WWW_DATA)
}
