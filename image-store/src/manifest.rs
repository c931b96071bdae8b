//! The documents that describe an image: index, manifest, config.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;

/// Media types a registry is asked for, best first.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// The compression is told from the layer's first bytes, as writers are known to mislabel it.
const LAYER_TYPES: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// A document that a reference can lead to.
#[derive(Clone, Debug)]
pub enum Manifest {
    /// One image.
    Image(Box<ImageManifest>),
    /// The same image for several platforms.
    Index(Box<ImageIndex>),
}

/// Why a document does not describe an image that nexcage can pull.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not the JSON it should be.
    #[error("the {what} is not valid JSON of its kind")]
    Json {
        /// `manifest`, `index` or `config`.
        what: &'static str,
        /// Where parsing stopped.
        #[source]
        source: serde_json::Error,
    },
    /// The format that Docker gave up in 2017.
    #[error(
        "it is a Docker schema 1 manifest, which cannot be verified; push the image again with a current tool"
    )]
    Schema1,
    /// Index and manifest in one document, so that two readers see two images (CVE-2021-41190).
    #[error("the document is both an index and a manifest")]
    Ambiguous,
    /// Neither index nor manifest.
    #[error("it is of type {0:?}, which is neither an image manifest nor an index")]
    NotAManifest(String),
    /// An OCI artifact: a chart, a signature, a module.
    #[error("it is an artifact of type {0:?}, not a container image")]
    Artifact(String),
    /// A layer that registries must not pass on.
    #[error(
        "layer {position} is of the foreign type {media_type:?}, which its registry does not hold"
    )]
    ForeignLayer {
        /// Counted from 0, the lowest.
        position: usize,
        /// Its media type.
        media_type: String,
    },
    /// A layer of a type nobody knows.
    #[error("layer {position} is of the unknown type {media_type:?}")]
    LayerType {
        /// Counted from 0, the lowest.
        position: usize,
        /// Its media type.
        media_type: String,
    },
    /// Content named by another algorithm than SHA-256.
    #[error("the digest {0:?} is not sha256, the only algorithm that can be verified here")]
    Digest(String),
    /// An image without content.
    #[error("the image has no layers")]
    NoLayers,
    /// Config and manifest of different images.
    #[error("the manifest has {layers} layers and the config {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
}

impl ManifestError {
    /// Whether the document is broken, rather than something that cannot be used here.
    pub fn is_broken(&self) -> bool {
        match self {
            Self::Json { .. } | Self::Ambiguous | Self::LayerCount { .. } => true,
            Self::Schema1
            | Self::NotAManifest(_)
            | Self::Artifact(_)
            | Self::ForeignLayer { .. }
            | Self::LayerType { .. }
            | Self::Digest(_)
            | Self::NoLayers => false,
        }
    }
}

/// The fields that tell one kind of document from another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Reads a manifest or an index, OCI's or Docker's.
///
/// # Errors
///
/// [`ManifestError`]; never panics, whatever the bytes.
pub fn parse_manifest(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let kind: Kind = from_json("manifest", bytes)?;
    let declared = kind.media_type.as_deref().unwrap_or_default();
    if kind.schema_version == Some(1)
        || kind.fs_layers.is_some()
        || declared.starts_with("application/vnd.docker.distribution.manifest.v1+")
    {
        return Err(ManifestError::Schema1);
    }
    let looks_like_image = kind.config.is_some() || kind.layers.is_some();
    let looks_like_index = kind.manifests.is_some();
    let is_index = match (looks_like_image, looks_like_index) {
        (true, true) => return Err(ManifestError::Ambiguous),
        (true, false) => false,
        (false, true) => true,
        (false, false) => {
            let named = kind.artifact_type.as_deref().unwrap_or(declared);
            let named = if named.is_empty() { "unknown" } else { named };
            return Err(ManifestError::NotAManifest(clip(named)));
        }
    };
    let allowed = if is_index {
        INDEX_TYPES
    } else {
        MANIFEST_TYPES
    };
    if !declared.is_empty() && !allowed.contains(&declared) {
        let other = if is_index {
            MANIFEST_TYPES
        } else {
            INDEX_TYPES
        };
        return Err(if other.contains(&declared) {
            ManifestError::Ambiguous
        } else {
            ManifestError::NotAManifest(clip(declared))
        });
    }
    if is_index {
        Ok(Manifest::Index(Box::new(from_json("index", bytes)?)))
    } else {
        Ok(Manifest::Image(Box::new(from_json("manifest", bytes)?)))
    }
}

/// Whether an index entry of this type leads to another index.
pub(crate) fn is_index_type(media_type: &str) -> bool {
    INDEX_TYPES.contains(&media_type)
}

/// Whether an index entry of this type leads to an image.
pub(crate) fn is_manifest_type(media_type: &str) -> bool {
    MANIFEST_TYPES.contains(&media_type)
}

/// Content in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    /// Bytes.
    pub(crate) size: u64,
}

/// What one image is made of.
#[derive(Clone, Debug)]
pub(crate) struct ImageBlobs {
    pub(crate) config: Blob,
    /// Lowest first.
    pub(crate) layers: Vec<Blob>,
}

impl ImageBlobs {
    /// What `manifest` names, if all of it is of a kind that makes a container image.
    pub(crate) fn of(manifest: &ImageManifest) -> Result<Self, ManifestError> {
        let config_type = manifest.config().media_type().as_ref();
        if !CONFIG_TYPES.contains(&config_type) {
            let artifact = manifest.artifact_type().as_ref();
            return Err(ManifestError::Artifact(clip(
                artifact.map_or(config_type, AsRef::as_ref),
            )));
        }
        if manifest.layers().is_empty() {
            return Err(ManifestError::NoLayers);
        }
        let mut layers = Vec::with_capacity(manifest.layers().len());
        for (position, layer) in manifest.layers().iter().enumerate() {
            check_layer_type(position, layer.media_type().as_ref())?;
            layers.push(blob(layer)?);
        }
        Ok(Self {
            config: blob(manifest.config())?,
            layers,
        })
    }
}

fn check_layer_type(position: usize, media_type: &str) -> Result<(), ManifestError> {
    if LAYER_TYPES.contains(&media_type) {
        return Ok(());
    }
    let foreign = media_type.contains(".nondistributable.") || media_type.contains(".foreign.");
    let media_type = clip(media_type);
    Err(if foreign {
        ManifestError::ForeignLayer {
            position,
            media_type,
        }
    } else {
        ManifestError::LayerType {
            position,
            media_type,
        }
    })
}

pub(crate) fn blob(descriptor: &Descriptor) -> Result<Blob, ManifestError> {
    let text = descriptor.digest().as_ref();
    Ok(Blob {
        digest: text
            .parse()
            .map_err(|_| ManifestError::Digest(clip(text)))?,
        size: descriptor.size(),
    })
}

/// The config of an image, and the digests of its layers as tar streams, lowest first.
pub(crate) fn parse_config(
    bytes: &[u8],
    layers: usize,
) -> Result<(ImageConfiguration, Vec<Digest>), ManifestError> {
    let config: ImageConfiguration = from_json("config", bytes)?;
    let diff_ids = config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| text.parse().map_err(|_| ManifestError::Digest(clip(text))))
        .collect::<Result<Vec<Digest>, _>>()?;
    if diff_ids.len() != layers {
        return Err(ManifestError::LayerCount {
            layers,
            diff_ids: diff_ids.len(),
        });
    }
    Ok((config, diff_ids))
}

fn from_json<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|source| ManifestError::Json { what, source })
}

fn clip(text: &str) -> String {
    text.chars().take(150).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(document: &serde_json::Value) -> Result<Manifest, ManifestError> {
        parse_manifest(document.to_string().as_bytes())
    }

    fn descriptor(media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", "1".repeat(64)), "size": 2})
    }

    fn image(config: &str, layer: &str) -> serde_json::Value {
        json!({"schemaVersion": 2, "config": descriptor(config), "layers": [descriptor(layer)]})
    }

    fn blobs(document: &serde_json::Value) -> Result<ImageBlobs, ManifestError> {
        match parse(document)? {
            Manifest::Image(manifest) => ImageBlobs::of(&manifest),
            Manifest::Index(_) => panic!("an index"),
        }
    }

    #[test]
    fn both_families_of_types_are_taken() {
        for layer in LAYER_TYPES {
            for config in CONFIG_TYPES {
                assert_eq!(blobs(&image(config, layer)).unwrap().layers.len(), 1);
            }
        }
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let mut helm = image(
            "application/vnd.cncf.helm.config.v1+json",
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        );
        let mut messages = vec![blobs(&helm).unwrap_err().to_string()];
        helm["mediaType"] = "text/html".into();
        let both = json!({"schemaVersion": 2, "manifests": [], "layers": []});
        let confused = json!({"schemaVersion": 2, "manifests": [], "mediaType": MANIFEST_TYPES[0]});
        for document in [
            helm,
            both,
            confused,
            json!({"schemaVersion": 1, "name": "x", "fsLayers": [], "history": []}),
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.artifact.manifest.v1+json",
                "artifactType": "application/x.sbom", "blobs": []}),
            json!({}),
            json!([]),
            json!({"schemaVersion": 2, "config": 7, "layers": []}),
        ] {
            let error = parse(&document).unwrap_err();
            messages.push(error.to_string());
        }
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        for layer in [foreign, nondistributable, "application/x-tar"] {
            messages.push(
                blobs(&image(CONFIG_TYPES[0], layer))
                    .unwrap_err()
                    .to_string(),
            );
        }
        let mut empty = image(CONFIG_TYPES[0], LAYER_TYPES[0]);
        empty["layers"] = json!([]);
        messages.push(blobs(&empty).unwrap_err().to_string());
        let mut sha512 = image(CONFIG_TYPES[0], LAYER_TYPES[0]);
        sha512["config"]["digest"] = format!("sha512:{}", "1".repeat(128)).into();
        messages.push(blobs(&sha512).unwrap_err().to_string());
        insta::assert_snapshot!(messages.join("\n"));
    }

    #[test]
    fn config_and_manifest_must_agree() {
        let config = json!({"os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": []}});
        assert!(matches!(
            parse_config(config.to_string().as_bytes(), 1),
            Err(ManifestError::LayerCount {
                layers: 1,
                diff_ids: 0
            })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_manifest(&bytes);
            let _ = parse_config(&bytes, 1);
        }

        #[test]
        fn a_mangled_manifest_is_parsed_or_refused(
            at in 0usize..400, with in any::<u8>(), cut in 0usize..400,
        ) {
            let mut bytes = image(CONFIG_TYPES[0], LAYER_TYPES[1]).to_string().into_bytes();
            let len = bytes.len();
            bytes[at % len] = with;
            bytes.truncate(len - cut % len);
            if let Ok(Manifest::Image(manifest)) = parse_manifest(&bytes) {
                let _ = ImageBlobs::of(&manifest);
            }
        }
    }
}
