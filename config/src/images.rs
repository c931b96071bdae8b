//! Pulling and keeping images.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{AbsolutePath, BaseUrl};

/// Pulling and keeping images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Images {
    /// How to talk to each registry, by host name as it stands in image references, with `:port` if that is given there:
    /// `registry.k8s.io`, `docker.io`, `10.0.0.1:5000`, `[fd00::1]:5000`. `*` is for all hosts that are not listed; entries are not
    /// merged. A mirror's TLS settings and headers are those of the entry of its own host.
    pub registries: BTreeMap<String, Registry>,
    /// Credentials for pulls that bring none, in the format of docker's `config.json` (`auths`). Read at each such pull. Keep it
    /// readable by root alone. Default: such pulls are anonymous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<AbsolutePath>,
    /// Layers that are downloaded at one time, over all pulls.
    #[schemars(range(min = 1, max = 64))]
    pub max_parallel_downloads: u32,
    /// A download that receives nothing for so many seconds is tried again, and at last fails.
    #[schemars(range(min = 1, max = 86400))]
    pub progress_timeout_seconds: u64,
    /// Bytes of one layer as it is downloaded; a larger one is refused.
    #[schemars(range(min = 1))]
    pub max_layer_bytes: u64,
    /// Images that kubelet must never remove to gain space: names as `crictl images` shows them, `*` stands for any
    /// characters (`registry.example/base/*`). They are reported to kubelet as pinned.
    pub pinned: Vec<String>,
    /// Where layers wait until they are unpacked; needs room for the largest images that are pulled at one time. Default: `spool` below
    /// `storage.root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_dir: Option<AbsolutePath>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            credentials_file: None,
            max_parallel_downloads: 6,
            progress_timeout_seconds: 60,
            max_layer_bytes: 32 << 30,
            pinned: Vec::new(),
            spool_dir: None,
        }
    }
}

impl Images {
    /// The entry for a registry host (with `:port` if the reference has one): its own, else `*`.
    pub fn registry(&self, host: &str) -> Option<&Registry> {
        self.registries
            .get(host)
            .or_else(|| self.registries.get("*"))
    }
}

/// How to talk to one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Asked before the registry itself, in this order: `scheme://host[:port][/prefix]`. The prefix goes before the repository's
    /// name: with `http://10.0.0.1:5000/k8s`, `registry.k8s.io/pause:3.10` is asked for as `/v2/k8s/pause/manifests/3.10`. A mirror is given
    /// up for the next one when it has no such image, cannot be reached or fails. Credentials for the registry are never sent to a mirror.
    pub mirrors: Vec<BaseUrl>,
    /// Talk HTTP, not HTTPS, to the registry itself (a mirror's scheme is in its URL).
    pub plain_http: bool,
    /// Certificates of authorities, PEM, that this registry's certificate may be signed by, in addition to the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<AbsolutePath>,
    /// Accept any certificate. Anybody between here and the registry can then read credentials and, for images that are not
    /// named by digest, choose what runs: prefer `ca_file`.
    pub skip_verify: bool,
    /// Headers sent with each request. Not for credentials: `Authorization`, `Cookie` and `Host` are refused.
    pub headers: BTreeMap<String, String>,
}
