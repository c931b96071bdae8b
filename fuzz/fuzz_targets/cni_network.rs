//! `cni_network` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nexcage_fuzz::run("cni_network", data));
