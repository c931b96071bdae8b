//! What CNI plugins print.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|output: &[u8]| nexcage_cni::fuzz::result(output));
