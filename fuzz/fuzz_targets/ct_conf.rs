//! `ct_conf` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nexcage_fuzz::run("ct_conf", data));
