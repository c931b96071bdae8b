//! Where a simulated node is, and what a daemon there is told.

use std::ops::Range;

use camino::Utf8PathBuf;
use serde_json::{Value, json};

use super::NODE;

/// Where a simulated node is on a machine.
#[derive(Clone, Debug)]
pub struct Place {
    /// What it keeps for itself.
    pub directory: Utf8PathBuf,
    /// Where its cluster file system is mounted.
    pub mount: Utf8PathBuf,
    /// Where LXC keeps containers.
    pub lxc_path: Utf8PathBuf,
}

impl Place {
    /// The sections of the daemon's configuration, of a node that is here; its API has this port. `start` is `direct` or `api`.
    #[must_use]
    pub fn config(&self, start: &str, port: u16, vmids: Range<u32>) -> Value {
        json!({
            "default_backend": "proxmox",
            "runtime_handlers": { "lxc": { "backend": "lxc" }, "host": { "backend": "host" } },
            "proxmox": {
                "node": NODE,
                "pve_dir": self.mount,
                "lxc_path": self.lxc_path,
                "vmids": { "first": vmids.start, "last": vmids.end - 1 },
                "start": start,
                "api_url": api_url(port),
                "ca_file": self.ca_file(),
                "token_file": self.token_file(),
            },
        })
    }

    pub(super) fn ca_file(&self) -> Utf8PathBuf {
        self.mount.join("pve-root-ca.pem")
    }

    pub(super) fn token_file(&self) -> Utf8PathBuf {
        self.directory.join("nexcage-token")
    }
}

pub(super) fn api_url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}
