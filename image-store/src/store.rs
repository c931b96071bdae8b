//! The image store: the handle that everybody holds.

use std::collections::HashSet;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::{Arc, PoisonError, RwLock};

use camino::Utf8Path;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::credentials::Credentials;
use crate::credentials_file::NodeCredentials;
use crate::digest::{ChainId, Digest};
use crate::gc;
use crate::keyed::Keyed;
use crate::layer_store::{LayerStore, LayerStoreError, Usage};
use crate::leases::Leases;
use crate::manifest::Blob;
use crate::options::ImageStoreOptions;
use crate::pull::{ConfigFlight, Flight, LayerContent, ProgressSender, PullError, pull};
use crate::records::{Found, ImageId, ImageRecord, Key, Records};
use crate::reference::{Reference, ReferenceError, is_hex, is_hex_id};
use crate::registry::{Connections, Registries, chain};
use crate::spool::Spool;

/// Shortest beginning of an image id that is looked for, in hex digits.
const MIN_PREFIX: usize = 4;

/// All images of this machine. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct ImageStore {
    shared: Arc<Shared>,
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: ImageStoreOptions,
    /// Replaced as a whole when the settings change.
    hosts: RwLock<(Arc<Registries>, Arc<Connections>)>,
    pub(crate) records: Records,
    pub(crate) spool: Arc<Spool>,
    pub(crate) flights: Keyed<LayerContent, Flight>,
    pub(crate) configs: Keyed<Blob, ConfigFlight>,
    /// One lock per layer: held while the layer store is asked to look for, apply or remove it.
    pub(crate) chains: Keyed<ChainId, tokio::sync::Mutex<()>>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// Work that is finished even if who asked for it has gone.
    pub(crate) tasks: TaskTracker,
    closing: CancellationToken,
}

impl Shared {
    /// The registry settings of now, and the connections made with them.
    pub(crate) fn registries(&self) -> (Arc<Registries>, Arc<Connections>) {
        self.hosts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What [`ImageStore::collect`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers that were removed.
    pub removed: usize,
    /// Layers that no image has but a container still uses.
    pub in_use: usize,
}

/// Why the image store could not do what it was asked; pulls have [`PullError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageStoreError {
    /// The name is neither an image id nor a reference.
    #[error("the image name cannot be used")]
    Name(#[from] ReferenceError),
    /// A part of an id that several images begin with.
    #[error("{prefix:?} is the beginning of more than one image id")]
    Ambiguous {
        /// What was given.
        prefix: String,
    },
    /// A setting cannot work.
    #[error("{setting} cannot be used: {problem}")]
    Settings {
        /// Its name in [`ImageStoreOptions`].
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file or directory of the store cannot be used.
    #[error("{doing}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The records cannot be read or written.
    #[error("image records cannot be used")]
    Records(#[from] nexcage_sqlite::DatabaseError),
    /// The layer store failed.
    #[error("the layer store cannot be used")]
    LayerStore(#[from] LayerStoreError),
    /// The daemon is ending.
    #[error("the image store is closing")]
    Closing,
}

impl ImageStoreError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Records(source) => source.is_retryable(),
            Self::LayerStore(source) => source.is_retryable(),
            // A full disk may get room again.
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Closing => true,
            Self::Name(_) | Self::Ambiguous { .. } | Self::Settings { .. } => false,
        }
    }
}

impl ImageStore {
    /// Opens the store: removes what an earlier process left in the spool, forgets images whose
    /// layers are gone, and removes layers without an image. Only one process may have it open.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError`]; among others if a setting cannot work.
    pub async fn open(options: ImageStoreOptions) -> Result<Self, ImageStoreError> {
        let root = options.root.clone();
        let pinned = pinned_names(&options.pinned)?;
        let credentials_file = options.credentials_file.clone();
        let (records, spool) = tokio::task::spawn_blocking(move || {
            if let Some(path) = credentials_file {
                check_credentials_file(&path)?;
            }
            open_files(&root, pinned)
        })
        .await
        .map_err(|_| ImageStoreError::Closing)??;
        let hosts = (
            Arc::new(options.registries.clone()),
            Arc::new(Connections::default()),
        );
        let store = Self {
            shared: Arc::new(Shared {
                options,
                hosts: RwLock::new(hosts),
                records,
                spool: Arc::new(spool),
                flights: Keyed::default(),
                configs: Keyed::default(),
                chains: Keyed::default(),
                leases: Arc::default(),
                collecting: tokio::sync::Mutex::default(),
                tasks: TaskTracker::new(),
                closing: CancellationToken::new(),
            }),
        };
        store.collect().await?;
        Ok(store)
    }

    /// Pulls an image and records it. Whatever is here already, the registry is asked with these
    /// credentials whether they may have the image; only then is anything shared with other pulls.
    ///
    /// Cancel-safe: when the future is dropped, other pulls that share its downloads take over.
    ///
    /// # Errors
    ///
    /// [`PullError`].
    pub async fn pull(
        &self,
        reference: &Reference,
        credentials: Credentials,
        progress: Option<ProgressSender>,
    ) -> Result<ImageRecord, PullError> {
        // Boxed: the future holds a session, and callers hold the future.
        let pulled = Box::pin(pull(&self.shared, reference, &credentials, progress));
        tokio::select! {
            // Cancel-safe: nobody waits for the pull any more when the store closes.
            () = self.shared.closing.cancelled() => Err(PullError::Closing),
            // Ends the wait above, which has nothing to lose.
            done = pulled => done,
        }
    }

    /// The image of this name, if it is here: an id with or without `sha256:`, a unique beginning of
    /// one (at least 4 digits), a tag or digest reference, or one with both, where the digest
    /// decides. Short references are normalized.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError::Name`], [`ImageStoreError::Ambiguous`], [`ImageStoreError::Records`].
    pub async fn image(&self, name: &str) -> Result<Option<ImageRecord>, ImageStoreError> {
        match self.find(name).await? {
            Some(id) => Ok(self.shared.records.image(&id).await?),
            None => Ok(None),
        }
    }

    /// All images.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError::Records`].
    pub async fn images(&self) -> Result<Vec<ImageRecord>, ImageStoreError> {
        Ok(self.shared.records.images().await?)
    }

    /// Removes an image with all its names, and the layers that nothing else needs. `None` if
    /// there is none. Layers that containers use stay until a [`collect`](Self::collect) after them.
    ///
    /// # Errors
    ///
    /// As [`image`](Self::image). That layers cannot be removed is no error: it is logged and tried
    /// again by the next collection.
    pub async fn remove(&self, name: &str) -> Result<Option<ImageId>, ImageStoreError> {
        let Some(id) = self.find(name).await? else {
            return Ok(None);
        };
        self.shared.records.forget(&id).await?;
        nexcage_failpoint::hit("image.forgotten");
        tracing::info!(%id, "image removed");
        if let Err(error) = self.collect().await {
            tracing::warn!(error = %chain(&error), "layers of a removed image are left for later");
        }
        Ok(Some(id))
    }

    /// Removes layers that no image has and nothing uses, and forgets images that have lost a layer. To be called after a
    /// container is gone, or could not be made. Goes on to its end even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError::LayerStore`], [`ImageStoreError::Records`].
    pub async fn collect(&self) -> Result<Collected, ImageStoreError> {
        let shared = self.shared.clone();
        self.shared
            .tasks
            .spawn(async move { gc::collect(&shared).await })
            .await
            .map_err(|_| ImageStoreError::Closing)?
    }

    /// Space that layers take.
    ///
    /// # Errors
    ///
    /// [`ImageStoreError::LayerStore`].
    pub async fn usage(&self) -> Result<Usage, ImageStoreError> {
        Ok(self.shared.options.layers.layers_usage().await?)
    }

    /// Where the layers are.
    pub fn layers(&self) -> &Arc<dyn LayerStore> {
        &self.shared.options.layers
    }

    /// Takes new registry settings for pulls that begin from now on, and reads certificate files
    /// anew.
    pub fn set_registries(&self, registries: Registries) {
        let fresh = (Arc::new(registries), Arc::new(Connections::default()));
        *self
            .shared
            .hosts
            .write()
            .unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Ends running pulls with [`PullError::Closing`] and waits until no layer is being applied or
    /// removed.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Which image a name stands for.
    async fn find(&self, name: &str) -> Result<Option<ImageId>, ImageStoreError> {
        for key in keys(name)? {
            match self.shared.records.find(key).await? {
                Found::Nothing => {}
                Found::One(id) => return Ok(Some(id)),
                Found::Several => {
                    return Err(ImageStoreError::Ambiguous {
                        prefix: name.to_owned(),
                    });
                }
            }
        }
        Ok(None)
    }
}

/// How to look for a name, in order.
fn keys(name: &str) -> Result<Vec<Key>, ReferenceError> {
    if let Ok(digest) = name.parse::<Digest>() {
        return Ok(vec![Key::Id(ImageId(digest))]);
    }
    if is_hex_id(name)
        && let Ok(digest) = format!("sha256:{name}").parse()
    {
        return Ok(vec![Key::Id(ImageId(digest))]);
    }
    let is_prefix = |text: &str| (MIN_PREFIX..64).contains(&text.len()) && is_hex(text);
    if let Some(hex) = name.strip_prefix("sha256:").filter(|hex| is_prefix(hex)) {
        return Ok(vec![Key::Prefix(hex.to_owned())]);
    }
    let reference: Reference = name.parse()?;
    let mut keys = vec![Key::Name(
        match (reference.digest(), reference.repo_tag()) {
            (None, Some(tag)) => tag,
            (Some(digest), _) => reference.repo_digest(digest),
            (None, None) => reference.to_string(),
        },
    )];
    // A short repository may look like the beginning of an id; a repository wins.
    if is_prefix(name) {
        keys.push(Key::Prefix(name.to_owned()));
    }
    Ok(keys)
}

fn pinned_names(pinned: &[String]) -> Result<HashSet<String>, ImageStoreError> {
    let mut names = HashSet::new();
    for text in pinned {
        let reference: Reference = text.parse().map_err(|error| ImageStoreError::Settings {
            setting: "pinned",
            problem: chain(&error),
        })?;
        names.extend(match reference.digest() {
            Some(digest) => Some(reference.repo_digest(digest)),
            None => reference.repo_tag(),
        });
    }
    Ok(names)
}

fn check_credentials_file(path: &Utf8Path) -> Result<(), ImageStoreError> {
    match NodeCredentials::read(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(ImageStoreError::Settings {
            setting: "credentials_file",
            problem: format!("{path}: {}", chain(&error)),
        }),
    }
}

fn open_files(
    root: &Utf8Path,
    pinned: HashSet<String>,
) -> Result<(Records, Spool), ImageStoreError> {
    let io = |doing: String| move |source| ImageStoreError::Io { doing, source };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(io(format!("cannot make the directory {root}")))?;
    let spool = root.join("spool");
    let spool = Spool::open(spool.clone()).map_err(io(format!("cannot empty {spool}")))?;
    let records = Records::open(&root.join("images.db"), pinned)?;
    Ok((records, spool))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn names() {
        let hex = "0123456789abcdef".repeat(4);
        let inputs = [
            format!("sha256:{hex}"),
            hex.clone(),
            hex[..12].to_owned(),
            format!("sha256:{}", &hex[..13]),
            "busybox".into(),
            "cafe".into(),
            "abc".into(),
            format!("quay.io/a/b@sha256:{hex}"),
            format!("quay.io/a/b:tag@sha256:{hex}"),
            "".into(),
            "a b".into(),
        ];
        let mut table = String::new();
        for input in inputs {
            let _ = match keys(&input) {
                Ok(keys) => writeln!(table, "{input:?}\n  {keys:?}"),
                Err(error) => writeln!(table, "{input:?}\n  ! {error}"),
            };
        }
        insta::assert_snapshot!(table);
    }
}
