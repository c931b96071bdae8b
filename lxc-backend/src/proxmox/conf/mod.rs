//! The configuration of a container as Proxmox has it, `<pve_dir>/nodes/<node>/lxc/<vmid>.conf`.
//!
//! `grammar` reads it as Proxmox does, `build` writes that of a pod, `edit` changes keys of one that an administrator may have
//! edited, `compare` tells what was edited. All of it is pure.

mod build;
mod compare;
mod edit;
mod grammar;

pub(crate) use build::Setting;
pub(crate) use build::build;
pub(crate) use build::is_hostname;
pub(crate) use build::limits;
pub(crate) use compare::compare;
pub(crate) use edit::edit;
pub(crate) use grammar::Conf;
