//! SHA-1, by which Proxmox tells whether a configuration was changed.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// In hexadecimal.
pub fn sha1(data: &[u8]) -> String {
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, data);
    let mut text = String::new();
    for byte in sum.as_ref() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_known_sum() {
        let sum = super::sha1(b"abc");
        assert_eq!(sum, "a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}
