//! Network configurations, as a plugin's installer writes them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| nexcage_cni::fuzz::network(document));
