//! Proxmox VE.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{AbsolutePath, BaseUrl};

/// Pods as Proxmox VE containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Proxmox {
    /// The name of this node in its cluster. Default: what `<pve_dir>/local` points to, or else the host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Where Proxmox's cluster file system is mounted.
    pub pve_dir: AbsolutePath,
    /// Where Proxmox keeps its LXC containers. Proxmox itself knows no other place than the default.
    pub lxc_path: AbsolutePath,
    /// The numbers that pods' containers get. Nothing else in the cluster should use the range.
    pub vmids: VmidRange,
    /// Who starts the container.
    pub start: ProxmoxStart,
    /// The API server of this node.
    pub api_url: BaseUrl,
    /// The certificate authority of the API server, PEM.
    pub ca_file: AbsolutePath,
    /// A file, readable by root alone, with an API token as `user@realm!name=secret`. Needed where `start` is `api`;
    /// elsewhere it lets `nexcage doctor` look at the cluster by its API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<AbsolutePath>,
}

impl Default for Proxmox {
    fn default() -> Self {
        Self {
            node: None,
            pve_dir: AbsolutePath::constant("/etc/pve"),
            lxc_path: AbsolutePath::constant("/var/lib/lxc"),
            vmids: VmidRange::default(),
            start: ProxmoxStart::Direct,
            api_url: BaseUrl::constant("https://127.0.0.1:8006"),
            ca_file: AbsolutePath::constant("/etc/pve/pve-root-ca.pem"),
            token_file: None,
        }
    }
}

/// A range of VMIDs, both ends included. Of at most 8 digits: Proxmox names a container's interface after it, and the kernel
/// takes 15 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VmidRange {
    /// The first.
    #[schemars(range(min = 100, max = 99_999_999))]
    pub first: u32,
    /// The last, not below `first`.
    #[schemars(range(min = 100, max = 99_999_999))]
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
    /// nexcage itself, with `lxc-start`: fast, and it needs no API.
    Direct,
    /// Proxmox, asked through its API: with a task in its log and its own checks, and many times slower. Needs
    /// `token_file`.
    Api,
}
