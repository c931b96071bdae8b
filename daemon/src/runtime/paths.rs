//! Where the daemon keeps its things. All of it follows from two directories of the configuration and an id.

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_config::Config;

/// Directories of one OCI runtime. Their names are short because sockets are in them.
#[derive(Clone, Debug)]
pub(crate) struct OciPaths {
    /// `crun --root`.
    pub(crate) root: Utf8PathBuf,
    /// `conmon --exit-dir`.
    pub(crate) exits: Utf8PathBuf,
    /// What else conmon leaves.
    pub(crate) monitors: Utf8PathBuf,
}

impl OciPaths {
    fn new(dir: &Utf8Path) -> Self {
        Self {
            root: dir.join("c"),
            exits: dir.join("e"),
            monitors: dir.join("m"),
        }
    }

    fn directories(&self) -> [(Utf8PathBuf, u32); 3] {
        [&self.root, &self.exits, &self.monitors].map(|dir| (dir.clone(), 0o700))
    }
}

/// Directories and files of this daemon.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: Utf8PathBuf,
    run: Utf8PathBuf,
    netns: Utf8PathBuf,
    prefix: String,
}

impl Paths {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            root: config.storage.root.to_path_buf(),
            run: config.storage.run_dir.to_path_buf(),
            netns: config.sandbox.netns_dir.to_path_buf(),
            prefix: config.lxc.name_prefix.clone(),
        }
    }

    /// What survives a reboot.
    pub(crate) fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// What does not.
    pub(crate) fn run(&self) -> &Utf8Path {
        &self.run
    }

    pub(crate) fn database(&self) -> Utf8PathBuf {
        self.root.join("state.db")
    }

    pub(crate) fn images(&self) -> Utf8PathBuf {
        self.root.join("images")
    }

    pub(crate) fn overlay(&self) -> Utf8PathBuf {
        self.root.join("overlay")
    }

    /// Records of the `zfs` storage driver, and where its pool is mounted to be measured.
    pub(crate) fn zfs(&self) -> Utf8PathBuf {
        self.root.join("zfs")
    }

    /// Remembers which storage driver was chosen.
    pub(crate) fn storage_driver(&self) -> Utf8PathBuf {
        self.root.join("storage-driver")
    }

    /// The tree every sandbox has as its root.
    pub(crate) fn sandbox_rootfs(&self) -> Utf8PathBuf {
        self.root.join("sandbox")
    }

    pub(crate) fn pods(&self) -> Utf8PathBuf {
        self.run.join("pods")
    }

    pub(crate) fn pod(&self, id: &str) -> Utf8PathBuf {
        self.pods().join(id)
    }

    pub(crate) fn bundles(&self) -> Utf8PathBuf {
        self.run.join("containers")
    }

    pub(crate) fn bundle(&self, id: &str) -> Utf8PathBuf {
        self.bundles().join(id)
    }

    /// What crun and conmon keep of app containers.
    pub(crate) fn oci(&self) -> OciPaths {
        OciPaths::new(&self.run.join("oci"))
    }

    /// What crun keeps of the sandboxes of the `host` backend. Apart from the others: whoever owns these directories
    /// removes what it does not know in them.
    pub(crate) fn oci_sandboxes(&self) -> OciPaths {
        OciPaths::new(&self.run.join("sb"))
    }

    pub(crate) fn netns_dir(&self) -> &Utf8Path {
        &self.netns
    }

    /// Where a pod's network namespace is pinned.
    pub(crate) fn netns(&self, id: &str) -> Utf8PathBuf {
        self.netns.join(format!("{}{id}", self.prefix))
    }

    /// The pod whose network namespace is pinned under this name, if it is one of ours.
    pub(crate) fn pod_of_netns<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(&self.prefix)
            .filter(|id| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    }

    /// Logs of containers whose pod has no log directory.
    pub(crate) fn logs(&self, pod: &str) -> Utf8PathBuf {
        self.all_logs().join(pod)
    }

    pub(crate) fn all_logs(&self) -> Utf8PathBuf {
        self.root.join("logs")
    }

    /// Directories that must exist before anything runs, with their modes. Those that a user
    /// namespace's root must pass through let others pass.
    pub(crate) fn directories(&self) -> Vec<(Utf8PathBuf, u32)> {
        [
            (self.root.clone(), 0o711),
            (self.run.clone(), 0o711),
            (self.images(), 0o700),
            (self.pods(), 0o711),
            (self.bundles(), 0o711),
        ]
        .into_iter()
        .chain(self.oci().directories())
        .chain(self.oci_sandboxes().directories())
        .collect()
    }
}
