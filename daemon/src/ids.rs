//! Ids of pods and containers: 64 hex digits, as every CRI client expects.

/// A new id from 256 random bits.
pub(crate) fn new_id() -> String {
    use std::fmt::Write as _;
    let bits: [u8; 32] = rand::random();
    bits.iter().fold(String::with_capacity(64), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_64_hex_digits_and_differ() {
        let (a, b) = (super::new_id(), super::new_id());
        assert!(a.len() == 64 && a.bytes().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(a, b);
    }
}
