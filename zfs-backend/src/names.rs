//! What datasets are called, and the properties they carry.

use std::collections::BTreeMap;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::{ChainId, LayerStoreError, RootfsId};

use crate::error::{Doing, Result, refused, unsupported};
use crate::zfs::{Entry, Properties};

/// What a dataset or snapshot is for. Only what has it, set there and not inherited, is ours.
pub(crate) const ROLE: &str = "nexcage:role";
/// The layer that a snapshot holds.
pub(crate) const CHAIN: &str = "nexcage:chain";
/// The root filesystem that a dataset is.
pub(crate) const ROOTFS: &str = "nexcage:rootfs";
/// The store that a root dataset belongs to.
pub(crate) const STORE: &str = "nexcage:store";

/// The properties that were configured last, as they were written: ZFS shows some by other names.
pub(crate) const CONFIGURED: &str = "nexcage:properties";

/// What recovery needs to know of everything below the root dataset.
pub(crate) const TREE: [&str; 3] = [ROLE, CHAIN, ROOTFS];

/// Longest name of the root dataset: ZFS takes 255 bytes for a checkpoint of a root filesystem.
const ROOT_MAX: usize = 80;

/// Properties that containers may have: they change how data is kept, not who may do what or how much.
const ALLOWED: [&str; 13] = [
    "atime",
    "checksum",
    "compression",
    "direct",
    "dnodesize",
    "logbias",
    "primarycache",
    "recordsize",
    "redundant_metadata",
    "relatime",
    "secondarycache",
    "special_small_blocks",
    "sync",
];

/// Properties of all images and containers unless configured otherwise. The extended attributes and ACLs of
/// images need the last two.
const BASE: [(&str, &str); 3] = [("atime", "off"), ("xattr", "sa"), ("acltype", "posixacl")];

/// Roles, the values of [`ROLE`].
pub(crate) mod role {
    pub(crate) const IMAGE: &str = "image";
    pub(crate) const LAYER: &str = "layer";
    pub(crate) const CONTAINER: &str = "container";
    pub(crate) const CHECKPOINT: &str = "checkpoint";
}

/// Names below one root dataset.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    root: String,
}

impl Names {
    /// Takes the root dataset's name if it can be one.
    pub(crate) fn new(root: &str) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b);
        let whole = root
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
        if whole && root.bytes().all(plain) && root.len() <= ROOT_MAX {
            return Ok(Self {
                root: root.to_owned(),
            });
        }
        Err(refused(
            io::ErrorKind::InvalidInput,
            format!("using {root:?} as the name of a dataset"),
            "a name is that of a pool and of datasets in it, as in tank/nexcage, of at most 80 letters, digits, - _ . and :",
        ))
    }

    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    pub(crate) fn pool(&self) -> &str {
        self.root.split('/').next().unwrap_or(&self.root)
    }

    pub(crate) fn images(&self) -> String {
        format!("{}/images", self.root)
    }

    pub(crate) fn containers(&self) -> String {
        format!("{}/containers", self.root)
    }

    pub(crate) fn deleted(&self) -> String {
        format!("{}/deleted", self.root)
    }

    /// The dataset whose mount point stands for all of them.
    pub(crate) fn fs(&self) -> String {
        format!("{}/fs", self.root)
    }

    /// An image's dataset, perhaps one that is waiting for its end.
    pub(crate) fn image(&self, n: i64, deleted: bool) -> String {
        match deleted {
            false => format!("{}/images/{n}", self.root),
            true => format!("{}/deleted/{n}", self.root),
        }
    }

    /// A generation of a root filesystem. The first has its name; ids have no colon.
    pub(crate) fn container(&self, id: &RootfsId, generation: i64) -> String {
        match generation {
            0 => format!("{}/containers/{id}", self.root),
            n => format!("{}/containers/{id}:{n}", self.root),
        }
    }

    /// A new name for something that is waiting for its end.
    pub(crate) fn doomed(&self) -> String {
        format!("{}/deleted/{:016x}", self.root, rand::random::<u64>())
    }
}

/// A layer's snapshot in `dataset`.
pub(crate) fn snapshot(dataset: &str, chain: &ChainId) -> String {
    format!("{dataset}@{}", &chain.digest().hex()[..16])
}

/// What is after the last slash, or after the `@`.
pub(crate) fn last(name: &str) -> &str {
    name.rsplit(['/', '@']).next().unwrap_or(name)
}

/// Properties from pairs.
pub(crate) fn tags(pairs: &[(&str, &str)]) -> Properties {
    (pairs.iter())
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Whether this is ours, and what for.
pub(crate) fn is(entry: &Entry, role: &str) -> bool {
    entry.local(ROLE) == Some(role)
}

/// Names of properties that are set for all images and containers together.
pub(crate) fn common_properties() -> Vec<&'static str> {
    let mut names = ALLOWED.to_vec();
    names.extend(BASE.iter().map(|(name, _)| *name));
    names.sort_unstable();
    names.dedup();
    names
}

/// The properties of all images and containers.
///
/// # Errors
///
/// [`LayerStoreError::Unsupported`] for one that is not allowed.
pub(crate) fn with_base(properties: &BTreeMap<String, String>) -> Result<Properties> {
    allowed(properties)?;
    let mut all = tags(&BASE);
    all.extend(properties.clone());
    Ok(all)
}

/// Refuses properties that containers may not choose, by name.
pub(crate) fn allowed(properties: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in properties {
        if !ALLOWED.contains(&name.as_str()) {
            return Err(unsupported(format!(
                "the property {name:?}; those that can be set are {}",
                ALLOWED.join(", ")
            )));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if value.is_empty() || !value.bytes().all(plain) {
            return Err(unsupported(format!(
                "the value {value:?} of the property {name}"
            )));
        }
    }
    Ok(())
}

/// Ids become names of datasets and directories.
pub(crate) fn check_id(id: &RootfsId) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if matches!(id.0.len(), 1..=128) && id.0.bytes().all(plain) && !id.0.starts_with('.') {
        return Ok(());
    }
    Err(refused(
        io::ErrorKind::InvalidInput,
        format!("using {:?} as the name of a root filesystem", id.0),
        "a name has 1 to 128 letters, digits, - _ . and does not begin with a dot",
    ))
}

/// Directories on the host's own file system.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) root: Utf8PathBuf,
    /// Where [`Names::fs`] is mounted.
    pub(crate) fs: Utf8PathBuf,
    pub(crate) mounts: Utf8PathBuf,
    pub(crate) mapped_mounts: Utf8PathBuf,
}

impl Places {
    pub(crate) fn new(root: &Utf8Path, run: &Utf8Path) -> Self {
        Self {
            root: root.to_owned(),
            fs: root.join("fs"),
            mounts: run.join("rootfs"),
            mapped_mounts: run.join("mapped"),
        }
    }

    /// Makes them. Files of images belong to whom the image says, setuid bits and all, so nobody
    /// but root may reach them; only mounts for user namespaces have to be reachable for others.
    pub(crate) fn make(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for (path, mode) in [
            (&self.root, 0o700),
            (&self.mounts, 0o700),
            (&self.mapped_mounts, 0o711),
        ] {
            std::fs::create_dir_all(path).doing("making the directory", path)?;
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
                .doing("setting the mode of", path)?;
        }
        // Something may be mounted there already.
        std::fs::create_dir_all(&self.fs).doing("making the directory", &self.fs)
    }
}

/// Whether an error says that a dataset or what it belongs to is not there.
pub(crate) fn is_missing(error: &LayerStoreError) -> bool {
    matches!(error, LayerStoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// Whether an error says that a dataset is in somebody's hands.
pub(crate) fn is_busy(error: &LayerStoreError) -> bool {
    matches!(error, LayerStoreError::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["tank", "tank/nexcage", "rpool/data/a_b-c.d:e"] {
            assert_eq!(Names::new(good).unwrap().root(), good);
        }
        let long = format!("tank/{}", "x".repeat(80));
        for bad in [
            "",
            "/tank",
            "tank/",
            "tank//x",
            "tank/../x",
            "tank/x@y",
            "a b",
            &long,
        ] {
            assert!(Names::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Names::new("tank/a/b").unwrap().pool(), "tank");
    }

    #[test]
    fn the_longest_name_fits() {
        let names = Names::new(&"r".repeat(ROOT_MAX)).unwrap();
        let id = RootfsId("i".repeat(128));
        let longest = format!("{}@checkpoint-99999999999", names.container(&id, 9999));
        assert!(longest.len() < 256, "{}", longest.len());
    }

    #[test]
    fn properties_are_refused_by_name() {
        let of = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        allowed(&of("recordsize", "8K")).unwrap();
        for (name, value) in [
            ("mountpoint", "/etc"),
            ("dedup", "on"),
            ("nexcage:role", "x"),
            ("recordsize", ""),
            ("recordsize", "8K,x=y"),
        ] {
            let refused = allowed(&of(name, value)).unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
        }
        let base = with_base(&of("atime", "on")).unwrap();
        assert_eq!(
            (base["atime"].as_str(), base["xattr"].as_str()),
            ("on", "sa")
        );
    }
}
