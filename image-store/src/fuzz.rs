//! What the fuzz targets in `fuzz/` call beyond the public interface. For nobody else.

use crate::manifest::{ImageBlobs, Manifest, parse_config, parse_manifest};
use crate::registry::challenge;

/// A manifest or index, and what it names.
pub fn manifest(document: &[u8]) {
    if let Ok(Manifest::Image(manifest)) = parse_manifest(document) {
        let _ = ImageBlobs::of(&manifest);
    }
}

/// The config of an image with one layer.
pub fn image_config(document: &[u8]) {
    let _ = parse_config(document, 1);
}

/// The header of an answer 401.
pub fn challenge(header: &str) {
    for challenge in challenge::parse(header) {
        assert!(!challenge.scheme.is_empty());
        let _ = challenge.get("realm");
    }
}
