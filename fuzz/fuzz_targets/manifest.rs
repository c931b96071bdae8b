//! Manifests, indexes and image configs from a registry.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    nexcage_image_store::fuzz::manifest(document);
    nexcage_image_store::fuzz::image_config(document);
});
