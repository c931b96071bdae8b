//! What the `proxmox` backend needs to know.

use std::ops::RangeInclusive;
use std::sync::Arc;

use camino::Utf8PathBuf;
use nexcage_command::Program;

use crate::api::Pve;
use crate::container::LxcOptions;

/// What the `proxmox` backend needs to know.
#[derive(Clone, Debug)]
pub struct ProxmoxOptions {
    /// What it has in common with plain LXC. Proxmox finds containers in `/var/lib/lxc` alone.
    pub lxc: LxcOptions,
    /// Where Proxmox's cluster file system is mounted, `/etc/pve`.
    pub pve_dir: Utf8PathBuf,
    /// The node's name in the cluster, as in `<pve_dir>/nodes/<node>`.
    pub node: String,
    /// VMIDs that this node may give to pods, and nobody else: from 100, with 8 digits at most, since Proxmox names a
    /// container's interface `veth<vmid>i<n>` and the kernel takes 15 bytes.
    pub vmids: RangeInclusive<u32>,
    /// Where Proxmox locks containers' configurations, `/run/lock/lxc`.
    pub lock_dir: Utf8PathBuf,
    /// Where Proxmox keeps what `lxc-start` and its hooks say of containers that it starts, `/run/pve`.
    pub run_dir: Utf8PathBuf,
    /// Who starts containers.
    pub start: StartMode,
    /// `dpkg-query`, which knows Proxmox's version.
    pub dpkg_query: Program,
    /// The program with the hidden subcommand `hook post-stop` ([`post_stop`](crate::post_stop)): nexcage itself. LXC
    /// runs it when a container has stopped, so its path must outlive an upgrade.
    pub hook: Program,
}

/// Who starts containers.
#[derive(Clone, Debug)]
pub enum StartMode {
    /// nexcage, by `lxc-start`: no Perl on a pod's way.
    Direct,
    /// Proxmox, asked by its API: with a task in the node's list, and its own checks and hooks.
    Api(Arc<dyn Pve>),
}
