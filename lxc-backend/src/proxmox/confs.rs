//! The configurations of this node's containers, and whose they are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_sandbox::SandboxId;

use super::conf::Conf;
use super::lock::ConfLock;
use super::pmxcfs::Pmxcfs;

/// How long to wait for the lock: Proxmox's own tools wait as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A configuration could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfError {
    /// There is none.
    #[error("{path} does not exist")]
    NotFound {
        /// Where it would be.
        path: Utf8PathBuf,
    },
    /// The number is another guest's.
    #[error("the number of {path} is taken")]
    Taken {
        /// Where it would be.
        path: Utf8PathBuf,
    },
    /// It is not the configuration of this pod.
    #[error("{path} is not of this pod")]
    Foreign {
        /// Which.
        path: Utf8PathBuf,
    },
    /// Nothing can be changed.
    #[error(
        "the Proxmox cluster has no quorum, so {path} cannot be changed; bring the other nodes back (pvecm status shows them)"
    )]
    NoQuorum {
        /// Which.
        path: Utf8PathBuf,
    },
    /// The cluster file system is not there.
    #[error("{directory} does not exist; is pve-cluster running, and the node's name right?")]
    NotMounted {
        /// The node's.
        directory: Utf8PathBuf,
    },
    /// Somebody else works on the container.
    #[error("{path} has been locked by somebody else for {} s", PATIENCE.as_secs())]
    Locked {
        /// The lock file.
        path: Utf8PathBuf,
    },
    /// It is no text.
    #[error("{path} has bytes that are no text; mend it with an editor")]
    NoText {
        /// Which.
        path: Utf8PathBuf,
    },
    /// Something else.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: Utf8PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ConfError {
    fn of(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => Self::NotFound { path },
                io::ErrorKind::AlreadyExists => Self::Taken { path },
                // Root may do everything but change a file system that refuses to be changed.
                io::ErrorKind::PermissionDenied => Self::NoQuorum { path },
                _ => Self::Io {
                    doing,
                    path,
                    source,
                },
            }
        }
    }
}

/// Whose a configuration is, if the container's directory is marked as a sandbox's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// There is none: a crash came before it was made, or somebody removed it.
    Nobody,
    /// The sandbox's; empty if a crash came before it was written.
    Ours(String),
    /// Somebody else's, which is never touched.
    Foreign,
}

/// `<pve_dir>/nodes/<node>/lxc`. All of it blocks.
#[derive(Clone, Debug)]
pub(crate) struct Confs {
    pmxcfs: Arc<dyn Pmxcfs>,
    directory: Utf8PathBuf,
    lock_dir: Utf8PathBuf,
}

impl Confs {
    pub(crate) fn new(
        pmxcfs: Arc<dyn Pmxcfs>,
        directory: Utf8PathBuf,
        lock_dir: Utf8PathBuf,
    ) -> Self {
        Self {
            pmxcfs,
            directory,
            lock_dir,
        }
    }

    /// Where they are.
    pub(crate) fn directory(&self) -> &Utf8Path {
        &self.directory
    }

    /// One of them.
    pub(crate) fn path(&self, vmid: u32) -> Utf8PathBuf {
        self.directory.join(format!("{vmid}.conf"))
    }

    /// Makes one that is not there; [`ConfError::Taken`] if any guest of the cluster has the number, or somebody is about to.
    pub(crate) fn create(&self, vmid: u32, text: &str) -> Result<(), ConfError> {
        let path = self.path(vmid);
        let Some(lock) = self.try_lock(vmid, Duration::ZERO)? else {
            return Err(ConfError::Taken { path });
        };
        let Err(error) = self.pmxcfs.create(&path, text) else {
            return Ok(());
        };
        if !path.exists() {
            // Nothing on this node has the number.
            lock.remove()
                .map_err(ConfError::of("remove the lock of", &path))?;
        }
        Err(match ConfError::of("make", &path)(error) {
            ConfError::NotFound { .. } => self.not_mounted(),
            error => error,
        })
    }

    /// Whose it is.
    pub(crate) fn owner(&self, vmid: u32, id: &SandboxId) -> Result<Owner, ConfError> {
        let path = self.path(vmid);
        let Some(bytes) = self.read(&path)? else {
            return Ok(Owner::Nobody);
        };
        let text = String::from_utf8_lossy(&bytes);
        let is_ours = text.is_empty() || include_of(&text, vmid, id).is_some();
        Ok(match is_ours {
            true => Owner::Ours(text.into_owned()),
            false => Owner::Foreign,
        })
    }

    /// Writes another text in the place of a sandbox's own, while nobody else can.
    pub(crate) fn change(
        &self,
        vmid: u32,
        id: &SandboxId,
        change: impl FnOnce(&str) -> String,
    ) -> Result<(), ConfError> {
        let path = self.path(vmid);
        let _lock = self.lock(vmid)?;
        let text = match self.owner(vmid, id)? {
            Owner::Ours(text) => text,
            Owner::Nobody => return Err(ConfError::NotFound { path }),
            Owner::Foreign => return Err(ConfError::Foreign { path }),
        };
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err(ConfError::NoText { path });
        }
        let changed = change(&text);
        if changed == text {
            return Ok(());
        }
        let replaced = self.pmxcfs.replace(&path, &changed);
        replaced.map_err(ConfError::of("write", &path))
    }

    /// Removes a sandbox's own, and its lock file. `Ok` if there is none; says whether it is somebody else's.
    pub(crate) fn remove(&self, vmid: u32, id: &SandboxId) -> Result<Owner, ConfError> {
        let path = self.path(vmid);
        let lock = self.lock(vmid)?;
        let owner = self.owner(vmid, id)?;
        if owner == Owner::Foreign {
            return Ok(owner);
        }
        // Also if there is none: a crash may have left what was to become one.
        let removed = self.pmxcfs.remove(&path);
        removed.map_err(ConfError::of("remove", &path))?;
        let removed = lock.remove();
        removed.map_err(ConfError::of("remove the lock of", &path))?;
        Ok(owner)
    }

    /// What is in one of them; `None` if it is really gone.
    fn read(&self, path: &Utf8Path) -> Result<Option<Vec<u8>>, ConfError> {
        // Where the cluster file system is not mounted, as when pve-cluster is restarted, there is none at all, and that says nothing
        // of this one. Mounted, it has all of them at once.
        for _ in 0..2 {
            match self.pmxcfs.read(path) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound && self.directory.is_dir() => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(self.not_mounted()),
                Err(e) => return Err(ConfError::of("read", path)(e)),
            }
        }
        Ok(None)
    }

    fn lock(&self, vmid: u32) -> Result<ConfLock, ConfError> {
        self.try_lock(vmid, PATIENCE)?
            .ok_or_else(|| ConfError::Locked {
                path: self.lock_path(vmid),
            })
    }

    fn try_lock(&self, vmid: u32, patience: Duration) -> Result<Option<ConfLock>, ConfError> {
        let path = self.lock_path(vmid);
        ConfLock::take(&path, patience).map_err(|source| ConfError::Io {
            doing: "lock",
            path,
            source,
        })
    }

    fn lock_path(&self, vmid: u32) -> Utf8PathBuf {
        self.lock_dir.join(format!("pve-config-{vmid}.lock"))
    }

    fn not_mounted(&self) -> ConfError {
        ConfError::NotMounted {
            directory: self.directory.clone(),
        }
    }
}

/// Name of the file that a container's configuration includes, below the run directory of its sandbox.
pub(crate) fn include_name(vmid: u32) -> String {
    format!("backend/{vmid}.conf")
}

/// The file that a configuration includes and that is made for this sandbox and this number alone: then it is the sandbox's.
pub(crate) fn include_of(text: &str, vmid: u32, id: &SandboxId) -> Option<Utf8PathBuf> {
    let end = format!("/{id}/{}", include_name(vmid));
    let conf = Conf::parse(text);
    let mut includes = conf.main.lxc("lxc.include");
    includes
        .find(|include| include.ends_with(&end))
        .map(Utf8PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::fake::FakePmxcfs;
    use std::fs;

    struct Setting {
        _temp: tempfile::TempDir,
        base: Utf8PathBuf,
        pmxcfs: Arc<FakePmxcfs>,
        confs: Confs,
        id: SandboxId,
    }

    impl Setting {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let base = Utf8Path::from_path(temp.path()).unwrap().to_owned();
            let pmxcfs = Arc::new(FakePmxcfs::new(&base, &["pve1", "pve2"]).unwrap());
            let confs = Confs::new(
                Arc::clone(&pmxcfs) as _,
                base.join("nodes/pve1/lxc"),
                base.join("locks"),
            );
            Self {
                _temp: temp,
                base,
                pmxcfs,
                confs,
                id: SandboxId("0123".into()),
            }
        }

        fn write(&self, vmid: u32, text: &str) {
            fs::write(self.confs.path(vmid), text).unwrap();
        }

        fn owner(&self, vmid: u32) -> Owner {
            self.confs.owner(vmid, &self.id).unwrap()
        }

        /// Names of all files of this node.
        fn names(&self) -> Vec<String> {
            let entries = self.confs.directory().read_dir_utf8().unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_owned()).collect();
            names.sort();
            names
        }
    }

    const OURS: &str = "memory: 64\nlxc.include: /run/pods/0123/backend/900.conf\n";

    #[test]
    fn only_what_includes_its_file_is_the_sandboxs() {
        let s = Setting::new();
        assert_eq!(s.owner(900), Owner::Nobody);
        s.write(900, "");
        assert_eq!(s.owner(900), Owner::Ours(String::new()));
        s.write(900, OURS);
        assert_eq!(s.owner(900), Owner::Ours(OURS.into()));
        // Copied to another number by an administrator.
        s.write(901, OURS);
        assert_eq!(s.owner(901), Owner::Foreign);
        for theirs in [
            "#lxc.include: /run/pods/0123/backend/900.conf\ntags: k8s;nexcage\n",
            "tags: k8s;nexcage\n\n[snap]\nlxc.include: /run/pods/0123/backend/900.conf\n",
            "lxc.include: /run/pods/9990123/backend/900.conf\n",
            "lxc.include: /run/pods/0123/backend/900.conf.old\n",
            "\n",
        ] {
            s.write(900, theirs);
            assert_eq!(s.owner(900), Owner::Foreign, "{theirs}");
        }
    }

    #[test]
    fn a_cluster_file_system_that_is_not_there_says_nothing() {
        let s = Setting::new();
        fs::rename(s.base.join("nodes"), s.base.join("elsewhere")).unwrap();
        let error = s.confs.owner(900, &s.id).unwrap_err();
        assert!(matches!(error, ConfError::NotMounted { .. }));
        assert!(s.confs.remove(900, &s.id).is_err());
        let error = s.confs.create(900, OURS).unwrap_err();
        assert!(error.to_string().contains("pve-cluster"), "{error}");
    }

    #[test]
    fn only_ones_own_is_changed_and_removed() {
        let s = Setting::new();
        let more = |text: &str| format!("{text}#more\n");
        let error = s.confs.change(900, &s.id, more).unwrap_err();
        assert!(matches!(error, ConfError::NotFound { .. }));
        s.confs.create(900, OURS).unwrap();
        s.confs.change(900, &s.id, more).unwrap();
        assert_eq!(s.owner(900), Owner::Ours(more(OURS)));

        s.write(901, OURS);
        let error = s.confs.change(901, &s.id, more).unwrap_err();
        assert!(matches!(error, ConfError::Foreign { .. }));
        assert_eq!(s.confs.remove(901, &s.id).unwrap(), Owner::Foreign);
        // What an interrupted change left goes with it.
        s.write(900, OURS);
        fs::write(s.confs.directory().join("900.conf.tmp.nexcage"), "").unwrap();
        assert_eq!(
            s.confs.remove(900, &s.id).unwrap(),
            Owner::Ours(OURS.into())
        );
        assert_eq!(s.names(), ["901.conf"]);
        assert!(!s.base.join("locks/pve-config-900.lock").exists());
        assert_eq!(s.confs.remove(900, &s.id).unwrap(), Owner::Nobody);
    }

    #[test]
    fn bytes_that_are_no_text_are_not_lost() {
        let s = Setting::new();
        let mut bytes = OURS.as_bytes().to_vec();
        bytes.extend(b"#\xff\n");
        fs::write(s.confs.path(900), &bytes).unwrap();
        assert!(matches!(s.owner(900), Owner::Ours(_)));
        let error = s.confs.change(900, &s.id, |_| String::new()).unwrap_err();
        assert!(matches!(error, ConfError::NoText { .. }));
        assert_eq!(fs::read(s.confs.path(900)).unwrap(), bytes);
    }

    #[test]
    fn without_quorum_what_is_there_stays() {
        let s = Setting::new();
        s.confs.create(900, OURS).unwrap();
        s.pmxcfs.set_quorate(false).unwrap();
        for error in [
            s.confs.create(901, OURS).unwrap_err(),
            s.confs.change(900, &s.id, |_| String::new()).unwrap_err(),
            s.confs.remove(900, &s.id).unwrap_err(),
        ] {
            assert!(matches!(error, ConfError::NoQuorum { .. }));
        }
        assert_eq!(s.owner(900), Owner::Ours(OURS.into()));
        // Nothing is to be changed where there is nothing.
        assert_eq!(s.confs.remove(901, &s.id).unwrap(), Owner::Nobody);
        s.pmxcfs.set_quorate(true).unwrap();
        s.confs.remove(900, &s.id).unwrap();
        assert!(s.names().is_empty());
    }

    #[test]
    fn a_number_that_somebody_works_on_is_taken() {
        let s = Setting::new();
        let path = s.base.join("locks/pve-config-900.lock");
        let theirs = ConfLock::take(&path, Duration::ZERO).unwrap().unwrap();
        let error = s.confs.create(900, OURS).unwrap_err();
        assert!(matches!(error, ConfError::Taken { .. }));
        drop(theirs);
        s.confs.create(900, OURS).unwrap();
        let error = s.confs.create(900, OURS).unwrap_err();
        assert!(matches!(error, ConfError::Taken { .. }));
    }
}
