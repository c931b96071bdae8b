//! Which of an index's images this machine can run.

use std::fmt;

use oci_spec::image::Platform as SpecPlatform;

/// Operating system, architecture and variant, in the words of GOOS and GOARCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v8`, `v7`, ...; none is the architecture's usual one.
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well an image for `other` runs here: 0 is best, none is not at all.
    pub(crate) fn rank(&self, other: &SpecPlatform) -> Option<usize> {
        if other.os().to_string() != self.os
            || other.architecture().to_string() != self.architecture
        {
            return None;
        }
        if other.variant().is_some() && *other.variant() == self.variant {
            return Some(0);
        }
        let mine = level(&self.architecture, self.variant.as_deref())?;
        let theirs = level(&self.architecture, other.variant().as_deref())?;
        // A newer level runs what an older one runs; an architecture without levels is all 0.
        mine.checked_sub(theirs)
    }

    /// Whether an image whose config says this runs here. An empty architecture is one that
    /// nobody filled in.
    pub(crate) fn runs(&self, os: &str, architecture: &str) -> bool {
        (os.is_empty() || os == self.os)
            && (architecture.is_empty() || architecture == self.architecture)
    }
}

/// The place of a variant among those of its architecture (OCI image index, "Platform Variants").
/// None for a variant that is not a level, which only runs on machines that say the same.
fn level(architecture: &str, variant: Option<&str>) -> Option<usize> {
    let usual = match architecture {
        "arm64" => 8,
        "arm" => 7,
        "amd64" => 1,
        _ => 0,
    };
    match variant {
        None | Some("") => Some(usual),
        Some(variant) => variant.strip_prefix('v')?.parse().ok(),
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::host()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

/// A platform of an index entry, for messages.
pub(crate) fn show(platform: &SpecPlatform) -> String {
    Platform {
        os: platform.os().to_string(),
        architecture: platform.architecture().to_string(),
        variant: platform.variant().clone(),
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(architecture: &str, variant: Option<&str>) -> SpecPlatform {
        let mut json = serde_json::json!({"os": "linux", "architecture": architecture});
        if let Some(variant) = variant {
            json["variant"] = variant.into();
        }
        serde_json::from_value(json).unwrap()
    }

    fn here(architecture: &str, variant: Option<&str>) -> Platform {
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_owned),
        }
    }

    #[test]
    fn variants() {
        let arm7 = here("arm", Some("v7"));
        assert_eq!(arm7.rank(&spec("arm", Some("v7"))), Some(0));
        assert_eq!(arm7.rank(&spec("arm", Some("v6"))), Some(1));
        assert_eq!(arm7.rank(&spec("arm", None)), Some(0));
        assert_eq!(arm7.rank(&spec("arm", Some("v8"))), None);
        assert_eq!(arm7.rank(&spec("arm64", None)), None);
        let amd64 = here("amd64", None);
        assert_eq!(amd64.rank(&spec("amd64", None)), Some(0));
        assert_eq!(amd64.rank(&spec("amd64", Some("v3"))), None);
        assert_eq!(
            here("arm64", Some("v8")).rank(&spec("arm64", None)),
            Some(0)
        );
    }

    #[test]
    fn an_attestation_is_for_nobody() {
        let unknown: SpecPlatform =
            serde_json::from_value(serde_json::json!({"os": "unknown", "architecture": "unknown"}))
                .unwrap();
        assert_eq!(here("amd64", None).rank(&unknown), None);
    }
}
