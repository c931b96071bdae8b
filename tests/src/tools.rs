//! What `cargo xtask test system` has built and started for us, told in environment variables.

use std::net::SocketAddr;

use anyhow::Context as _;
use camino::Utf8PathBuf;

/// The daemon's binary, with failpoints compiled in.
///
/// # Errors
///
/// If the test was not started by `cargo xtask test system`.
pub fn daemon() -> anyhow::Result<Utf8PathBuf> {
    variable("NEXCAGE_TEST_DAEMON").map(Utf8PathBuf::from)
}

/// crictl.
///
/// # Errors
///
/// If the test was not started by `cargo xtask test system`.
pub fn crictl() -> anyhow::Result<Utf8PathBuf> {
    variable("NEXCAGE_TEST_CRICTL").map(Utf8PathBuf::from)
}

/// critest.
///
/// # Errors
///
/// If the test was not started by `cargo xtask test system`.
pub fn critest() -> anyhow::Result<Utf8PathBuf> {
    variable("NEXCAGE_TEST_CRITEST").map(Utf8PathBuf::from)
}

/// Where the local registry listens; it speaks HTTP.
///
/// # Errors
///
/// If the test was not started by `cargo xtask test system`.
pub fn registry() -> anyhow::Result<SocketAddr> {
    let text = variable("NEXCAGE_TEST_REGISTRY")?;
    text.parse()
        .with_context(|| format!("NEXCAGE_TEST_REGISTRY is not an address: {text}"))
}

/// The simulator of a Proxmox VE node.
///
/// # Errors
///
/// If the test was not started by `cargo xtask test system`.
pub fn proxmox_sim() -> anyhow::Result<Utf8PathBuf> {
    variable("NEXCAGE_TEST_PROXMOX_SIM").map(Utf8PathBuf::from)
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name)
        .with_context(|| format!("{name} is not set; run this test by `cargo xtask test system`"))
}
