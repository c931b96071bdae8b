//! From a reference to the manifest of one image.

use oci_spec::image::{Descriptor, ImageIndex};

use super::error::PullError;
use crate::digest::Digest;
use crate::manifest::{
    Blob, ImageBlobs, Manifest, ManifestError, blob, is_index_type, is_manifest_type,
    parse_manifest,
};
use crate::platform::{self, Platform};
use crate::reference::Reference;
use crate::registry::{Session, chain};

/// Indexes in indexes, at most.
const MAX_DEPTH: usize = 4;
/// Indexes read for one pull, at most.
const MAX_INDEXES: usize = 16;

/// An image that a registry has and these credentials may pull.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Digest of what the reference names: the index if there is one, else the manifest.
    pub(super) digest: Digest,
    pub(super) blobs: ImageBlobs,
    /// The host that had the manifest.
    pub(super) host: usize,
    /// Whether an index said that the image is for this platform.
    pub(super) platform_known: bool,
}

/// A search through the indexes below a reference.
pub(super) struct Resolver<'a> {
    pub(super) session: &'a Session,
    pub(super) platform: &'a Platform,
    pub(super) max_bytes: u64,
}

/// An image that an index offers.
struct Offer {
    manifest: Blob,
    /// 0 fits best; none: the index does not say for which platform it is.
    rank: Option<usize>,
}

impl Resolver<'_> {
    /// Asks for the reference, and picks from an index what fits this platform.
    pub(super) async fn resolve(&self, reference: &Reference) -> Result<Resolved, PullError> {
        let (host, document) = self
            .session
            .manifest(0, &reference.manifest_name(), self.max_bytes)
            .await?;
        let digest = document.digest;
        let index = match self.parse(&document.bytes)? {
            Manifest::Image(manifest) => {
                return Ok(Resolved {
                    digest,
                    blobs: ImageBlobs::of(&manifest).map_err(|e| self.refuse(&e))?,
                    host,
                    platform_known: false,
                });
            }
            Manifest::Index(index) => *index,
        };
        let offer = self.choose(host, index).await?;
        let name = offer.manifest.digest.to_string();
        let (host, document) = self.session.manifest(host, &name, self.max_bytes).await?;
        self.check_size(&offer.manifest, document.bytes.len() as u64)?;
        match self.parse(&document.bytes)? {
            Manifest::Image(manifest) => Ok(Resolved {
                digest,
                blobs: ImageBlobs::of(&manifest).map_err(|e| self.refuse(&e))?,
                host,
                platform_known: offer.rank.is_some(),
            }),
            Manifest::Index(_) => {
                Err(self.invalid(format!("{name} is an index where a manifest should be")))
            }
        }
    }

    /// The best offer in an index and the indexes in it.
    async fn choose(&self, host: usize, index: ImageIndex) -> Result<Offer, PullError> {
        let mut best: Option<Offer> = None;
        let mut offered = Vec::new();
        let mut indexes = vec![(1, index)];
        let mut read = 1;
        while let Some((depth, index)) = indexes.pop() {
            for entry in index.manifests() {
                let media_type = entry.media_type().as_ref();
                if is_index_type(media_type) {
                    if self.is_for_another(entry) {
                        offered.extend(entry.platform().as_ref().map(platform::show));
                        continue;
                    }
                    read += 1;
                    if depth >= MAX_DEPTH || read > MAX_INDEXES {
                        return Err(self.invalid("too many indexes in indexes".into()));
                    }
                    indexes.push((depth + 1, self.nested(host, entry).await?));
                } else if is_manifest_type(media_type) {
                    self.consider(entry, &mut best, &mut offered)?;
                }
            }
        }
        best.ok_or_else(|| {
            offered.sort();
            offered.dedup();
            let offered = match offered.as_slice() {
                [] => "nothing".to_owned(),
                some => some.join(", "),
            };
            PullError::Unsupported {
                reference: self.session.subject(),
                detail: format!("no image for {}; the index offers {offered}", self.platform),
            }
        })
    }

    fn is_for_another(&self, entry: &Descriptor) -> bool {
        let platform = entry.platform().as_ref();
        platform.is_some_and(|platform| self.platform.rank(platform).is_none())
    }

    /// Keeps an entry if it fits better than the best so far.
    fn consider(
        &self,
        entry: &Descriptor,
        best: &mut Option<Offer>,
        offered: &mut Vec<String>,
    ) -> Result<(), PullError> {
        let rank = match entry.platform() {
            Some(platform) => match self.platform.rank(platform) {
                Some(rank) => Some(rank),
                None => {
                    // Attestations hide behind this.
                    if platform.os().to_string() != "unknown" {
                        offered.push(platform::show(platform));
                    }
                    return Ok(());
                }
            },
            // Signatures and the like say what they are instead.
            None if entry.artifact_type().is_some() => return Ok(()),
            None => None,
        };
        let order = |rank: Option<usize>| rank.unwrap_or(usize::MAX);
        if best
            .as_ref()
            .is_none_or(|best| order(rank) < order(best.rank))
        {
            *best = Some(Offer {
                manifest: blob(entry).map_err(|e| self.refuse(&e))?,
                rank,
            });
        }
        Ok(())
    }

    async fn nested(&self, host: usize, entry: &Descriptor) -> Result<ImageIndex, PullError> {
        let wanted = blob(entry).map_err(|e| self.refuse(&e))?;
        let name = wanted.digest.to_string();
        let (_, document) = self.session.manifest(host, &name, self.max_bytes).await?;
        self.check_size(&wanted, document.bytes.len() as u64)?;
        match self.parse(&document.bytes)? {
            Manifest::Index(index) => Ok(*index),
            Manifest::Image(_) => {
                Err(self.invalid(format!("{name} is a manifest where an index should be")))
            }
        }
    }

    fn check_size(&self, wanted: &Blob, got: u64) -> Result<(), PullError> {
        if wanted.size == got {
            return Ok(());
        }
        Err(self.invalid(format!(
            "{} has {got} bytes, and its index says {}",
            wanted.digest, wanted.size
        )))
    }

    fn parse(&self, bytes: &[u8]) -> Result<Manifest, PullError> {
        parse_manifest(bytes).map_err(|error| self.refuse(&error))
    }

    fn invalid(&self, detail: String) -> PullError {
        PullError::Invalid {
            reference: self.session.subject(),
            detail,
        }
    }

    fn refuse(&self, error: &ManifestError) -> PullError {
        refuse(self.session, error)
    }
}

/// The error of a pull whose manifest or config cannot be used.
pub(super) fn refuse(session: &Session, error: &ManifestError) -> PullError {
    let reference = session.subject();
    let detail = chain(error);
    if error.is_broken() {
        PullError::Invalid { reference, detail }
    } else {
        PullError::Unsupported { reference, detail }
    }
}
