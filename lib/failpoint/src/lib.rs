//! Named places where a test can kill the daemon.
//!
//! Every step that leaves something behind on the machine is followed by a
//! [`hit`]. In a normal build that is an empty inline function. With the feature
//! `enabled`, the process ends itself with SIGKILL when it reaches the place named by
//! the environment variable `NEXCAGE_FAILPOINT`: no destructor, no flush, no reply,
//! exactly as in a crash. The kill tests start the daemon once for every name in
//! [`ALL`] and then check that the next start leaves nothing behind.
//!
//! Invariant: a name that is hit anywhere is listed in [`ALL`]; with the feature
//! enabled an unlisted name panics, so the list cannot fall behind.

mod names;

pub use names::ALL;

/// How long to wait between two rounds of something periodic: `usual`, or what a test wants by `NEXCAGE_INTERVAL_MS`.
#[must_use]
pub fn interval(usual: std::time::Duration) -> std::time::Duration {
    if !cfg!(feature = "enabled") {
        return usual;
    }
    let wanted = std::env::var("NEXCAGE_INTERVAL_MS").ok();
    let wanted = wanted.and_then(|text| text.parse().ok());
    wanted.map_or(usual, std::time::Duration::from_millis)
}

/// Ends the process here if a test asked for it.
#[cfg(not(feature = "enabled"))]
#[inline(always)]
pub fn hit(_name: &str) {}

/// Ends the process here if a test asked for it.
///
/// # Panics
///
/// If `name` is missing from [`ALL`].
#[cfg(feature = "enabled")]
pub fn hit(name: &str) {
    assert!(
        ALL.contains(&name),
        "failpoint {name} is not listed in nexcage_failpoint::ALL"
    );
    if std::env::var("NEXCAGE_FAILPOINT").as_deref() == Ok(name) {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}
