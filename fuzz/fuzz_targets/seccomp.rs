//! Seccomp profiles, which pods name.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|profile: &[u8]| nexcage::fuzz::seccomp(profile));
