//! What the fuzz targets in `fuzz/` call beyond the public interface. For nobody else.

pub use crate::api::fuzz::proxmox_answer;
