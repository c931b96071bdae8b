//! What the OCI configuration of a container is made from.

use std::collections::BTreeSet;

use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image;
use oci_spec::runtime::{Capability, PosixRlimit};

use crate::containers::config::ContainerSpec;
use crate::containers::seccomp::{Profile, Target};
use crate::containers::users::ResolvedUser;

/// Everything that [`build`](super::build) looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpecInput<'a> {
    /// What was asked for.
    pub(crate) config: &'a ContainerSpec,
    /// The `config` part of the image's configuration, if it has one.
    pub(crate) image: Option<&'a image::Config>,
    /// Who it runs as.
    pub(crate) user: &'a ResolvedUser,
    /// The pod.
    pub(crate) sandbox: &'a SandboxFacts,
    /// The machine.
    pub(crate) node: &'a NodeFacts,
    /// The mounted root filesystem, absolute.
    pub(crate) rootfs: &'a Utf8Path,
    /// Cgroup of the container below `/sys/fs/cgroup`; `None` where cgroups are not managed, and then
    /// no limits are set at all.
    pub(crate) cgroup: Option<&'a Utf8Path>,
    /// What to bind for each of `config.mounts`, in the same order: the host path with symbolic links
    /// resolved, or the directory where the image (with its sub path) is mounted.
    pub(crate) mount_sources: &'a [Utf8PathBuf],
    /// Directories made for the volumes that the image declares.
    pub(crate) image_volumes: &'a [ImageVolumeMount],
    /// From [`devices::resolve`](crate::containers::devices::resolve).
    pub(crate) devices: &'a [HostDevice],
    /// With `PidMode::Target`: the pid namespace of that container, as `/proc/<pid>/ns/pid`.
    pub(crate) target_pid: Option<&'a Utf8Path>,
    /// With `SeccompProfile::Localhost`: that file.
    pub(crate) localhost_seccomp: Option<&'a Profile>,
}

/// A writable directory for a volume that the image declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageVolumeMount {
    /// One of [`image_volumes`](super::image_volumes).
    pub(crate) container_path: Utf8PathBuf,
    /// The directory on this machine.
    pub(crate) source: Utf8PathBuf,
}

/// What the pod gives to its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SandboxFacts {
    /// Host name in the pod; becomes `HOSTNAME`.
    pub(crate) hostname: String,
    /// The pod may hold privileged containers.
    pub(crate) privileged: bool,
    /// Network namespace, `/proc/<init>/ns/net`; `None` for the host's.
    pub(crate) network: Option<Utf8PathBuf>,
    /// IPC namespace; `None` for the host's.
    pub(crate) ipc: Option<Utf8PathBuf>,
    /// User namespace; `None` for the host's.
    pub(crate) user: Option<Utf8PathBuf>,
    /// UTS namespace; `None` for the host's.
    pub(crate) uts: Option<Utf8PathBuf>,
    /// PID namespace of the sandbox; `None` for the host's.
    pub(crate) pid: Option<Utf8PathBuf>,
    /// Becomes `/dev/shm`: the pod's own, or the host's with the host's IPC.
    pub(crate) shm: Utf8PathBuf,
    /// Becomes `/etc/resolv.conf`.
    pub(crate) resolv_conf: Option<Utf8PathBuf>,
    /// Becomes `/etc/hostname`.
    pub(crate) hostname_file: Option<Utf8PathBuf>,
    /// Becomes `/etc/hosts` where kubelet mounts none.
    pub(crate) hosts: Option<Utf8PathBuf>,
}

/// What the machine and its configuration give to every container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// Capabilities of a container that asks for nothing:
    /// [`DEFAULT_CAPABILITIES`](super::DEFAULT_CAPABILITIES) and those of `security.capabilities`.
    pub(crate) default_capabilities: Vec<Capability>,
    /// What the daemon itself has and so can give; from
    /// [`capabilities_from_mask`](super::capabilities_from_mask).
    pub(crate) available_capabilities: Vec<Capability>,
    /// `security.no_new_privileges`: set for every container that is not privileged.
    pub(crate) no_new_privileges: bool,
    /// `security.read_only_rootfs`: every container that is not privileged.
    pub(crate) read_only_rootfs: bool,
    /// The default filter; `None` if `security.seccomp` is off.
    pub(crate) default_seccomp: Option<Profile>,
    /// What filters are resolved for.
    pub(crate) seccomp_target: Target,
    /// `None` where AppArmor is off, in the kernel or by `security.apparmor`.
    pub(crate) apparmor: Option<AppArmorFacts>,
    /// The kernel counts swap per cgroup (`memory.swap.max` exists).
    pub(crate) swap_accounting: bool,
    /// The kernel limits huge pages per cgroup (the `hugetlb` controller).
    pub(crate) hugetlb: bool,
    /// Limits of every container's processes (getrlimit(2)); those not named are the daemon's own.
    pub(crate) rlimits: Vec<PosixRlimit>,
}

/// AppArmor on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppArmorFacts {
    /// What `RuntimeDefault` is; `None` leaves containers unconfined that ask for nothing.
    pub(crate) default_profile: Option<String>,
    /// Profiles in the kernel.
    pub(crate) loaded: BTreeSet<String>,
}

/// A device of this machine, as it shall appear in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostDevice {
    /// Path in the container.
    pub(crate) path: Utf8PathBuf,
    /// Block or character.
    pub(crate) kind: DeviceKind,
    /// Major number.
    pub(crate) major: u32,
    /// Minor number.
    pub(crate) minor: u32,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Some of `r`, `w` and `m`.
    pub(crate) permissions: String,
}

/// Kind of a device file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    /// Block.
    Block,
    /// Character.
    Char,
}
