//! Proxmox VE.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{AbsolutePath, BaseUrl};

/// Pods as Proxmox VE containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Proxmox {
    /// The numbers that pods' containers get. Nothing else in the cluster should use the range.
    pub vmids: VmidRange,
    /// Who starts the container.
    pub start: ProxmoxStart,
    /// The API server of this node.
    pub api_url: BaseUrl,
    /// The certificate authority of the API server, PEM.
    pub ca_file: AbsolutePath,
    /// A file, readable by root alone, with an API token as `user@realm!name=secret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<AbsolutePath>,
}

impl Default for Proxmox {
    fn default() -> Self {
        Self {
            vmids: VmidRange::default(),
            start: ProxmoxStart::Direct,
            api_url: BaseUrl::constant("https://127.0.0.1:8006"),
            ca_file: AbsolutePath::constant("/etc/pve/pve-root-ca.pem"),
            token_file: None,
        }
    }
}

/// A range of VMIDs, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VmidRange {
    /// The first.
    #[schemars(range(min = 100, max = 999_999_999))]
    pub first: u32,
    /// The last, not below `first`.
    #[schemars(range(min = 100, max = 999_999_999))]
    pub last: u32,
}

impl Default for VmidRange {
    fn default() -> Self {
        Self {
            first: 900_000,
            last: 999_999,
        }
    }
}

/// Who starts a Proxmox container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxmoxStart {
    /// nexcage itself, with `lxc-start`: fast.
    Direct,
    /// Proxmox, asked through its API: needs `token_file`.
    Api,
}
