//! What a container shall be: the domain's `ContainerConfig`.
//!
//! Made by `cri::convert` from a request, checked there field by field, kept in the
//! database as JSON and echoed to kubelet. What CRI writes as "zero means not given" is an
//! `Option` here.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use nexcage_sandbox::UserNamespace;
use oci_spec::runtime::Capability;
use serde::{Deserialize, Serialize};

use super::signal::Signal;

/// A container's specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    /// `metadata.name`; never empty.
    pub(crate) name: String,
    /// `metadata.attempt`.
    pub(crate) attempt: u32,
    /// The image, as asked for.
    pub(crate) image: ImageSpec,
    /// Replaces the image's entrypoint unless empty.
    pub(crate) command: Vec<String>,
    /// Replaces the image's cmd unless empty.
    pub(crate) args: Vec<String>,
    /// Absolute, or empty for the image's.
    pub(crate) working_dir: String,
    /// Environment, in order; a later one of the same name wins.
    pub(crate) envs: Vec<EnvVar>,
    /// In the order of the request.
    pub(crate) mounts: Vec<Mount>,
    /// Host devices.
    pub(crate) devices: Vec<Device>,
    /// Echoed verbatim.
    pub(crate) labels: BTreeMap<String, String>,
    /// Echoed verbatim.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Relative to the pod's log directory, without `..`; empty for none.
    pub(crate) log_path: String,
    /// Standard input stays open for attach.
    pub(crate) stdin: bool,
    /// Standard input ends when the first attached client goes.
    pub(crate) stdin_once: bool,
    /// Runs on a terminal.
    pub(crate) tty: bool,
    /// Limits.
    pub(crate) resources: Resources,
    /// Rights and isolation.
    pub(crate) security: SecurityContext,
    /// Overrides the image's stop signal.
    pub(crate) stop_signal: Option<Signal>,
}

impl ContainerSpec {
    /// The name kubelet retries under; unique within the pod.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.name, self.attempt)
    }
}

/// CRI's reference to an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageSpec {
    /// Id, tag or digest; never empty.
    pub(crate) image: String,
    /// Echoed verbatim.
    pub(crate) annotations: BTreeMap<String, String>,
    /// What the user wrote; may be empty.
    pub(crate) user_specified_image: String,
    /// Runtime handler the image was pulled for; empty for the default.
    pub(crate) runtime_handler: String,
    /// Digest that kubelet wants in the status of an image volume; may be empty.
    pub(crate) image_ref: String,
}

/// One environment variable. The OCI configuration is JSON, so the value is text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnvVar {
    /// Not empty, without `=`.
    pub(crate) name: String,
    /// May be empty.
    pub(crate) value: String,
}

/// Something mounted into the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// Absolute, normalised, never `/`.
    pub(crate) container_path: Utf8PathBuf,
    /// What is mounted.
    pub(crate) source: MountSource,
    /// Without write access. Always so for images.
    pub(crate) readonly: bool,
    /// Mounts below the source are read-only too; then `readonly` holds and `propagation` is private.
    pub(crate) recursive_read_only: bool,
    /// Where mounts made later are seen.
    pub(crate) propagation: Propagation,
    /// Echoed; means nothing without SELinux.
    pub(crate) selinux_relabel: bool,
    /// Its files belong to the ids that this maps theirs to: those of the pod's user namespace.
    #[serde(default)]
    pub(crate) mapping: Option<UserNamespace>,
    /// `noexec`, `nodev` and `nosuid`.
    pub(crate) options: Vec<MountFlag>,
}

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MountSource {
    /// A file or directory of this machine, absolute.
    HostPath(Utf8PathBuf),
    /// An image's root filesystem.
    Image {
        /// Which image.
        image: ImageSpec,
        /// Directory in it, relative without `..`; empty for the whole.
        sub_path: Utf8PathBuf,
    },
}

/// `MountPropagation` of CRI (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Propagation {
    /// `rprivate`.
    #[default]
    Private,
    /// `rslave`.
    HostToContainer,
    /// `rshared`.
    Bidirectional,
}

/// Extra restrictions of a mount (mount(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountFlag {
    /// No programs are executed from it.
    Noexec,
    /// Device files do not work in it.
    Nodev,
    /// Set-user-ID bits do not work in it.
    Nosuid,
}

impl MountFlag {
    /// All there are.
    pub(crate) const ALL: [Self; 3] = [Self::Noexec, Self::Nodev, Self::Nosuid];

    /// As CRI, OCI and mount(8) spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Noexec => "noexec",
            Self::Nodev => "nodev",
            Self::Nosuid => "nosuid",
        }
    }
}

/// A host device, or a directory of them, that appears in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Device {
    /// Absolute.
    pub(crate) container_path: Utf8PathBuf,
    /// Absolute.
    pub(crate) host_path: Utf8PathBuf,
    /// Some of `r`, `w` and `m`, as the device cgroup writes them.
    pub(crate) permissions: String,
}

/// Limits; `None` and empty are "not given".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resources {
    /// Period in microseconds.
    pub(crate) cpu_period_us: Option<u64>,
    /// Microseconds of each period; -1 is unlimited.
    pub(crate) cpu_quota_us: Option<i64>,
    /// Relative weight, 1024 for one CPU.
    pub(crate) cpu_shares: Option<u64>,
    /// Bytes; -1 is unlimited.
    pub(crate) memory_bytes: Option<i64>,
    /// Memory and swap together, in bytes; -1 is unlimited.
    pub(crate) memory_swap_bytes: Option<i64>,
    /// -1000 to 1000.
    pub(crate) oom_score_adj: i32,
    /// CPUs as a list, `0-2,7`.
    pub(crate) cpuset_cpus: String,
    /// Memory nodes as a list.
    pub(crate) cpuset_mems: String,
    /// Limits of huge pages.
    pub(crate) hugepages: Vec<HugepageLimit>,
    /// Files of cgroup v2 and what is written to them.
    pub(crate) unified: BTreeMap<String, String>,
}

/// Limit of huge pages of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HugepageLimit {
    /// `2MB`, `1GB`, ...
    pub(crate) page_size: String,
    /// Bytes.
    pub(crate) limit: u64,
}

/// Rights and isolation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecurityContext {
    /// Changes to the default capabilities.
    pub(crate) capabilities: CapabilityChanges,
    /// All rights, all devices, no confinement.
    pub(crate) privileged: bool,
    /// Which namespaces it shares.
    pub(crate) namespaces: Namespaces,
    /// Who it runs as; `None` for the image's user.
    pub(crate) run_as: Option<RunAs>,
    /// Further groups.
    pub(crate) supplemental_groups: Vec<u32>,
    /// Whether the image's groups count.
    pub(crate) supplemental_groups_policy: SupplementalGroupsPolicy,
    /// No write access to the root filesystem.
    pub(crate) readonly_rootfs: bool,
    /// No rights are gained by exec (prctl(2) `PR_SET_NO_NEW_PRIVS`).
    pub(crate) no_new_privs: bool,
    /// Paths that are hidden. None means none: kubelet sends the usual list itself.
    pub(crate) masked_paths: Vec<String>,
    /// Paths without write access.
    pub(crate) readonly_paths: Vec<String>,
    /// System call filter.
    pub(crate) seccomp: SeccompProfile,
    /// Mandatory access control.
    pub(crate) apparmor: AppArmorProfile,
    /// Applied by nobody: nexcage's nodes have no SELinux, and then these mean nothing in
    /// containerd and CRI-O too.
    pub(crate) selinux: SelinuxOptions,
}

/// Capabilities to add and to drop (capabilities(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CapabilityChanges {
    /// `ALL` is among those to add.
    pub(crate) add_all: bool,
    /// To add.
    pub(crate) add: Vec<Capability>,
    /// `ALL` is among those to drop.
    pub(crate) drop_all: bool,
    /// To drop.
    pub(crate) drop: Vec<Capability>,
    /// To add so that they survive exec as a user other than root.
    pub(crate) add_ambient: Vec<Capability>,
}

/// Which namespaces are shared with whom. For network and IPC the pod decides; what stands here
/// may only repeat it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    /// The host's network was asked for.
    pub(crate) host_network: bool,
    /// The host's IPC was asked for.
    pub(crate) host_ipc: bool,
    /// Processes seen.
    pub(crate) pid: PidMode,
    /// The pod's user namespace was asked for.
    #[serde(default)]
    pub(crate) user: Option<UserNamespace>,
    /// The host's user namespace was asked for, and not merely none other.
    #[serde(default)]
    pub(crate) host_user: bool,
}

/// Which processes a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PidMode {
    /// Those of the pod (CRI's default).
    #[default]
    Pod,
    /// Its own (kubelet's default).
    Container,
    /// The machine's.
    Node,
    /// Those of the container with this id, of the same pod.
    Target(String),
}

/// Who a container runs as, if not the image's user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunAs {
    /// The user.
    pub(crate) user: RunAsUser,
    /// The primary group, if not the user's own.
    pub(crate) group: Option<u32>,
}

/// A user by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunAsUser {
    /// Need not exist in the image.
    Uid(u32),
    /// Must exist in the image's `/etc/passwd`.
    Name(String),
}

/// How supplementary groups are made up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SupplementalGroupsPolicy {
    /// Those given and those of the image's `/etc/group`.
    #[default]
    Merge,
    /// Those given alone.
    Strict,
}

/// System call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SeccompProfile {
    /// None; also what a missing message means in CRI.
    #[default]
    Unconfined,
    /// The node's default.
    RuntimeDefault,
    /// A file of this machine, absolute.
    Localhost(Utf8PathBuf),
}

/// AppArmor profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AppArmorProfile {
    /// Nothing asked for: the node's default where AppArmor is on.
    #[default]
    Unset,
    /// The node's default, asked for by name: an error where AppArmor is off.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A profile that is loaded in the kernel, by name.
    Localhost(String),
}

/// SELinux label, kept for whoever asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SelinuxOptions {
    pub(crate) user: String,
    pub(crate) role: String,
    pub(crate) r#type: String,
    pub(crate) level: String,
}
