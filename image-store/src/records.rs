//! What is known of each image.

use std::fmt;

use jiff::Timestamp;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, Digest};

/// Identity of an image: the digest of its config, the same for every tag and registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Digest);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An image that is here in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Its id.
    pub id: ImageId,
    /// `registry/repository:tag`, sorted; empty if the tags have moved on.
    pub repo_tags: Vec<String>,
    /// `registry/repository@sha256:...` of the manifest or index that was asked for, sorted.
    pub repo_digests: Vec<String>,
    /// Space its layers take in the layer store, and its config; never 0. Layers that several images
    /// share count in each of them.
    pub size: u64,
    /// How its containers run.
    pub config: ImageConfiguration,
    /// The config as it came from the registry.
    pub config_json: String,
    /// Its layers, lowest first; never empty.
    pub chain: Vec<ChainId>,
    /// Whether kubelet must leave it alone.
    pub pinned: bool,
    /// When it was built, if its config says so.
    pub created: Option<Timestamp>,
    /// When it was first pulled.
    pub pulled: Timestamp,
}

impl ImageRecord {
    /// The layer that root filesystems stand on.
    pub fn top(&self) -> Option<&ChainId> {
        self.chain.last()
    }
}
