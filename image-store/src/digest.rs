//! Content digests, and the chain ids made of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 content digest, `sha256:<64 hex digits>` (OCI image spec, "Digests").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    hex: String,
}

/// Text that is not a digest nexcage can verify.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a sha256 digest (sha256: and 64 lower-case hex digits)")]
pub struct DigestError(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).as_slice())
    }

    /// From the 32 bytes of a finished hash.
    pub fn from_sha256(hash: &[u8]) -> Self {
        use fmt::Write as _;
        let mut hex = String::with_capacity(64);
        for byte in hash {
            let _ = write!(hex, "{byte:02x}");
        }
        Self { hex }
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.strip_prefix("sha256:") {
            Some(hex)
                if hex.len() == 64
                    && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
            {
                Ok(Self {
                    hex: hex.to_owned(),
                })
            }
            _ => Err(DigestError(text.chars().take(100).collect())),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Name of a layer together with everything below it (OCI image spec, "Layer ChainID").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(Digest);

impl ChainId {
    /// The chain id of the layer `diff_id` on top of `parent`.
    pub fn on(parent: Option<&Self>, diff_id: &Digest) -> Self {
        match parent {
            None => Self(diff_id.clone()),
            Some(Self(below)) => Self(Digest::of(format!("{below} {diff_id}").as_bytes())),
        }
    }

    /// The chain ids of a stack of layers, lowest first.
    pub fn stack(diff_ids: &[Digest]) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            chain.push(Self::on(chain.last(), diff_id));
        }
        chain
    }

    /// As a digest.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl From<Digest> for ChainId {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_strict() {
        let good = format!("sha256:{}", "a".repeat(64));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        for bad in [
            "",
            "sha256:",
            "sha512:00",
            &good[..70],
            &good.to_uppercase(),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_lowest_layer_is_its_own_chain() {
        let d = Digest::of(b"x");
        assert_eq!(ChainId::stack(std::slice::from_ref(&d))[0].digest(), &d);
    }
}
