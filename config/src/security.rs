//! What holds for every container on this node.

use std::borrow::Cow;
use std::fmt;

use camino::Utf8Path;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::value::{AbsolutePath, Capability};

/// The AppArmor profile of pods' LXC containers that is part of nexcage.
pub const SANDBOX_PROFILE: &str = "lxc-container-nexcage";

/// What holds for every container on this node, on top of what its pod asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// Use AppArmor where the kernel has it. `false` runs pods' LXC containers and app containers unconfined, and refuses
    /// containers that name a profile.
    pub apparmor: bool,
    /// The AppArmor profile of pods' LXC containers (`lxc.apparmor.profile`): `lxc-container-nexcage`, which nexcage loads; the name of another
    /// loaded one, which must begin with `lxc-` where LXC is confined itself; `generated` (LXC makes one for each container, which takes longer) or
    /// `unconfined`. An app container runs under the profile that its pod names, or else under `nexcage-default`. No effect without AppArmor
    /// in the kernel.
    pub apparmor_profile: String,
    /// Filter system calls of containers whose pod asks for the `RuntimeDefault` profile. `false` runs these unfiltered; a profile that a pod names is
    /// used all the same.
    pub seccomp: bool,
    /// What `RuntimeDefault` is: `default` for the profile of Debian's package golang-github-containers-common
    /// (`/usr/share/containers/seccomp.json`), or the absolute path of a file in that format.
    pub seccomp_profile: SeccompProfile,
    /// Capabilities (capabilities(7)) that every container has in addition to the usual default set. What a pod drops
    /// is dropped all the same.
    pub capabilities: Vec<Capability>,
    /// `true` runs every container that is not privileged with `no_new_privs` (prctl(2)), also where its pod allows
    /// privilege escalation. `false` leaves it to the pod.
    pub no_new_privileges: bool,
    /// `true` makes every container's root filesystem read-only, also where its pod wants to write to it. `false` leaves it
    /// to the pod.
    pub read_only_rootfs: bool,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            apparmor: true,
            apparmor_profile: SANDBOX_PROFILE.into(),
            seccomp: true,
            seccomp_profile: SeccompProfile::Default,
            capabilities: Vec::new(),
            no_new_privileges: false,
            read_only_rootfs: false,
        }
    }
}

/// Which seccomp profile `RuntimeDefault` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeccompProfile {
    /// The distribution's.
    Default,
    /// This file.
    File(AbsolutePath),
}

impl SeccompProfile {
    /// The file to read.
    pub fn path(&self) -> &Utf8Path {
        match self {
            Self::Default => Utf8Path::new("/usr/share/containers/seccomp.json"),
            Self::File(path) => path,
        }
    }
}

impl fmt::Display for SeccompProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl Serialize for SeccompProfile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SeccompProfile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "default" {
            return Ok(Self::Default);
        }
        AbsolutePath::new(text.as_str())
            .map(Self::File)
            .map_err(|e| serde::de::Error::custom(format_args!("{e}, or must be `default`")))
    }
}

impl JsonSchema for SeccompProfile {
    fn schema_name() -> Cow<'static, str> {
        "SeccompProfile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(default|/.*)$" })
    }
}
