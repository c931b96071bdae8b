//! What every container needs to know.

use camino::Utf8PathBuf;
use nexcage_command::Program;

/// What pods as LXC containers need to know.
#[derive(Clone, Debug)]
pub struct LxcOptions {
    /// Directory of all LXC containers (`lxc.lxcpath`), usually `/var/lib/lxc`. It and every directory above it must
    /// let others pass (`o+x`).
    pub lxc_path: Utf8PathBuf,
    /// The tree made by [`ensure_rootfs`](nexcage_sandbox::ensure_rootfs). Every directory above it must let others
    /// pass (`o+x`): the sandbox's root is nobody on the host.
    pub rootfs: Utf8PathBuf,
    /// First host id that the ids of a sandbox without a user namespace of its own are mapped to.
    pub id_base: u32,
    /// How many ids are mapped.
    pub id_count: u32,
    /// Whether sandboxes are confined, where the kernel has AppArmor.
    pub apparmor: bool,
    /// The AppArmor profile; without one LXC generates it.
    pub apparmor_profile: Option<String>,
    /// The program with the hidden subcommand `hold` ([`nexcage_command::hold`]): nexcage itself, by
    /// [`Program::myself`].
    pub holder: Program,
}
