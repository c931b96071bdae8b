//! LXC containers, and sandboxes in general.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::AbsolutePath;

/// LXC containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lxc {
    /// LXC's template for system containers: a name as `lxc-create --template` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The distribution of system containers, such as `debian`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<String>,
    /// The release of `distribution`, such as `bookworm` or `22.04`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The architecture of system containers, by Debian's name: `amd64`, `arm64`, `armel`, `armhf`, `i386`, `ppc64el`,
    /// `riscv64`, `s390x`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// The names of pods' LXC containers begin with this, the sandbox id follows. Whatever carries the prefix in `lxc_path` belongs to
    /// this daemon, which removes what it does not know: two daemons on one machine need prefixes of which none begins with the other.
    /// Lower case letters, digits and `-`, beginning with a letter and ending with `-`, at most 32 bytes.
    pub name_prefix: String,
    /// The ids on the host that ids in a pod's LXC container stand for. App containers of a pod that asks for no
    /// user namespace live outside of it, as kubelet expects.
    pub idmap: IdMap,
}

impl Default for Lxc {
    fn default() -> Self {
        Self {
            template: None,
            distribution: None,
            release: None,
            architecture: None,
            name_prefix: "nexcage-".into(),
            idmap: IdMap::default(),
        }
    }
}

/// One range of user and group ids (user_namespaces(7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IdMap {
    /// The id on the host that 0 inside stands for. `base + size` must not exceed 4294967295.
    #[schemars(range(min = 65536))]
    pub base: u32,
    /// How many ids.
    #[schemars(range(min = 65536))]
    pub size: u32,
}

impl Default for IdMap {
    fn default() -> Self {
        Self {
            base: 100_000,
            size: 65_536,
        }
    }
}

/// Pod sandboxes, whatever the backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// Who makes the cgroups of pods; reported to kubelet, whose own driver must be the same.
    pub cgroup_driver: CgroupDriver,
    /// Where network namespaces of pods are pinned (ip-netns(8)).
    pub netns_dir: AbsolutePath,
    /// Bytes a container's log may grow to before conmon begins it anew. Default: no limit; kubelet rotates logs by itself.
    #[schemars(range(min = 16384))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_size_max_bytes: Option<u64>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            cgroup_driver: CgroupDriver::Auto,
            netns_dir: AbsolutePath::constant("/run/netns"),
            log_size_max_bytes: None,
        }
    }
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// `systemd` where systemd is the init system, else `cgroupfs`.
    Auto,
    /// Transient scopes of systemd.
    Systemd,
    /// Directories in the cgroup file system.
    Cgroupfs,
}
