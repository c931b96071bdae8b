//! Facts about this machine.

use nexcage_sandbox::CgroupHost;

/// What was found at start.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// How cgroups are mounted.
    pub(crate) cgroups: CgroupHost,
    /// systemd is init, so scopes are its.
    pub(crate) systemd: bool,
}

impl Node {
    /// Limits and accounting work.
    pub(crate) fn limits(&self) -> bool {
        self.cgroups.has_controllers()
    }
}

/// Now, in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// The host's name, for pods that bring none.
pub(crate) fn hostname() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    // The kernel allows 64 bytes, a container's name only 63.
    name.chars().take(63).collect()
}
