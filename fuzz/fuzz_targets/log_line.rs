//! Logs of containers, as `nexcage logs` prints them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|log: &[u8]| nexcage::fuzz::log(log));
