//! A Proxmox VE node to test against.
pub mod conf;
pub mod pmxcfs;
