//! What follows from the configuration alone and touches nothing: the daemon is put together from it, and `nexcage doctor` looks
//! through it.

use std::sync::Arc;

use nexcage_cni::{Cni, CniOptions};
use nexcage_command::{Program, ProgramError};
use nexcage_config::{CgroupDriver, Config};
use nexcage_lxc::LxcOptions;
use nexcage_sandbox::{CgroupHost, CgroupTree};
use nexcage_systemd::{ScopeManager, SystemdScopes};

use super::Paths;
use crate::node::Node;

/// How this machine's cgroups are, and whose scopes are.
///
/// # Errors
///
/// When `/proc/self/mounts` cannot be read.
pub(crate) fn find_node(config: &Config) -> std::io::Result<Node> {
    let systemd = match config.sandbox.cgroup_driver {
        CgroupDriver::Auto => nexcage_systemd::booted(),
        CgroupDriver::Systemd => true,
        CgroupDriver::Cgroupfs => false,
    };
    Ok(Node {
        cgroups: CgroupHost::detect()?,
        systemd,
    })
}

/// Pods' places in the cgroup tree: scopes where systemd is init, directories elsewhere.
pub(crate) fn cgroup_tree(config: &Config, node: &Node) -> Arc<CgroupTree> {
    let scopes: Option<Arc<dyn ScopeManager>> = match node.systemd {
        true => Some(Arc::new(SystemdScopes::default())),
        false => None,
    };
    Arc::new(CgroupTree::new(
        node.cgroups.clone(),
        &config.lxc.name_prefix,
        scopes,
    ))
}

/// Settings of the backends that make LXC containers.
///
/// # Errors
///
/// If this program cannot find itself.
pub(crate) fn lxc_options(config: &Config, paths: &Paths) -> Result<LxcOptions, ProgramError> {
    Ok(LxcOptions {
        lxc_path: config.lxc_path.to_path_buf(),
        rootfs: paths.sandbox_rootfs(),
        id_base: config.lxc.idmap.base,
        id_count: config.lxc.idmap.size,
        apparmor: config.security.apparmor,
        apparmor_profile: Some(config.security.apparmor_profile.clone()),
        holder: Program::myself()?,
    })
}

/// Pods' networks.
pub(crate) fn cni(config: &Config) -> Cni {
    let plugin_dirs = config.network.plugin_dirs.iter();
    Cni::new(CniOptions {
        plugin_dirs: plugin_dirs.map(|d| d.to_path_buf()).collect(),
        conf_dir: config.network.conf_dir.to_path_buf(),
        cache_dir: config.cni_cache_dir(),
        deadline: config.network.deadline(),
    })
}
