//! Images made up for tests.

use std::io::Write as _;

use nexcage_image_store::Digest;
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A layer: nobody here looks into the tar.
#[derive(Clone, Debug)]
pub(crate) struct TestLayer {
    pub(crate) tar: Vec<u8>,
    pub(crate) blob: Vec<u8>,
    packing: Packing,
}

impl TestLayer {
    pub(crate) fn new(tar: impl Into<Vec<u8>>, packing: Packing) -> Self {
        let tar = tar.into();
        let blob = match packing {
            Packing::Plain => tar.clone(),
            Packing::Gzip => {
                let fast = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
                encoder.write_all(&tar).unwrap();
                encoder.finish().unwrap()
            }
            Packing::Zstd => zstd::stream::encode_all(tar.as_slice(), 1).unwrap(),
        };
        Self { tar, blob, packing }
    }

    /// Bytes that do not shrink, so that cuts and stalls have something to cut.
    pub(crate) fn random(seed: u8, length: usize) -> Self {
        let mut state = u64::from(seed) + 1;
        let tar: Vec<u8> = (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state.to_le_bytes()[7]
            })
            .collect();
        Self::new(tar, Packing::Gzip)
    }

    pub(crate) fn digest(&self) -> String {
        Digest::of(&self.blob).to_string()
    }

    pub(crate) fn diff_id(&self) -> Digest {
        Digest::of(&self.tar)
    }
}

/// An image with its documents.
#[derive(Clone, Debug)]
pub(crate) struct TestImage {
    pub(crate) layers: Vec<TestLayer>,
    pub(crate) config: Vec<u8>,
    pub(crate) document: Value,
    manifest: Vec<u8>,
}

impl TestImage {
    pub(crate) fn new(layers: &[TestLayer]) -> Self {
        Self::build(layers, &["linux", host_architecture()], false)
    }

    pub(crate) fn docker(layers: &[TestLayer]) -> Self {
        Self::build(layers, &["linux", host_architecture()], true)
    }

    pub(crate) fn for_platform(layers: &[TestLayer], os: &str, architecture: &str) -> Self {
        Self::build(layers, &[os, architecture], false)
    }

    fn build(layers: &[TestLayer], platform: &[&str; 2], docker: bool) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|l| l.diff_id().to_string()).collect();
        let config = json!({
            "created": "2026-01-02T03:04:05Z",
            "os": platform[0], "architecture": platform[1],
            "config": {"Env": ["A=b"], "Labels": null},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": null,
        });
        let config = config.to_string().into_bytes();
        let layer_type = |packing| match (docker, packing) {
            (true, Packing::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
            (true, Packing::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (true, Packing::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
            (false, Packing::Plain) => "application/vnd.oci.image.layer.v1.tar",
            (false, Packing::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (false, Packing::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        let (manifest_type, config_type) = if docker {
            (
                DOCKER_MANIFEST,
                "application/vnd.docker.container.image.v1+json",
            )
        } else {
            (OCI_MANIFEST, "application/vnd.oci.image.config.v1+json")
        };
        let document = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": descriptor(config_type, &config),
            "layers": layers
                .iter()
                .map(|l| descriptor(layer_type(l.packing), &l.blob))
                .collect::<Vec<_>>(),
        });
        let mut image = Self {
            layers: layers.to_vec(),
            config,
            document: Value::Null,
            manifest: Vec::new(),
        };
        image.set_document(document);
        image
    }

    pub(crate) fn set_document(&mut self, document: Value) {
        self.manifest = document.to_string().into_bytes();
        self.document = document;
    }

    pub(crate) fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    pub(crate) fn media_type(&self) -> &str {
        self.document["mediaType"].as_str().unwrap_or(OCI_MANIFEST)
    }

    pub(crate) fn digest(&self) -> String {
        Digest::of(&self.manifest).to_string()
    }

    pub(crate) fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    pub(crate) fn blobs(&self) -> Vec<(String, Vec<u8>)> {
        let mut blobs = vec![(self.id(), self.config.clone())];
        blobs.extend(self.layers.iter().map(|l| (l.digest(), l.blob.clone())));
        blobs
    }

    /// As an entry of an index.
    pub(crate) fn entry(&self, platform: &Value) -> Value {
        let mut entry = descriptor(self.media_type(), &self.manifest);
        if !platform.is_null() {
            entry["platform"] = platform.clone();
        }
        entry
    }
}

pub(crate) fn index(media_type: &str, entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries})
        .to_string()
        .into_bytes()
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
