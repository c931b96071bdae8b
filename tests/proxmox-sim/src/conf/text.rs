//! Small forms of text that Proxmox uses everywhere.

use std::fmt::Write as _;

/// Control characters, all beyond ASCII, `:` and `%` as `%XX`.
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b':' | b'%' | 0..0x20 | 0x7f.. => {
                // Writing to a string does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

/// The reverse of [`encode`].
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3));
        let byte = hex.flatten().and_then(|hex| {
            let digits = hex.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(hex, 16).ok())?
        });
        match byte {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A list with NULs, or else with commas, semicolons and spaces between its parts.
pub fn split_list(text: &str) -> Vec<&str> {
    let parts: Vec<_> = match text.contains('\0') {
        true => text.split('\0').collect(),
        false => text.split([',', ';', ' ', '\t', '\n']).collect(),
    };
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

/// What Proxmox takes for yes and no.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_can_be_decoded(text in ".{0,40}") {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b':'));
            prop_assert_eq!(decode(&encoded), text);
        }

        #[test]
        fn anything_can_be_decoded(text in ".{0,20}(%[0-9a-g]{0,3}.{0,3}){0,4}") {
            let _ = decode(&text);
        }
    }

    #[test]
    fn lists_are_split() {
        assert_eq!(split_list("a,b; c"), ["a", "b", "c"]);
        assert_eq!(split_list("a b\0c"), ["a b", "c"]);
        assert!(split_list(" ").is_empty());
    }
}
