//! `WWW-Authenticate` headers, which any server can send.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| nexcage_image_store::fuzz::challenge(header));
