//! What the service manager is told.

use std::time::Duration;

use sd_notify::NotifyState;

/// Sends the daemon's state to the service manager; does nothing when `NOTIFY_SOCKET` is
/// not set. See sd_notify(3).
///
/// A message that cannot be sent is logged and otherwise ignored: the daemon serves pods
/// whether or not anybody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notifier;

impl Notifier {
    /// The daemon serves requests (`READY=1`); also the end of a reload.
    pub fn ready(self) {
        send(&[NotifyState::Ready]);
    }

    /// The daemon reads its configuration again (`RELOADING=1`); [`ready`](Self::ready) must
    /// follow. systemd 253 and later wants the time, too.
    pub fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => {
                tracing::debug!(%error, "the monotonic clock cannot be read");
                send(&[NotifyState::Reloading]);
            }
        }
    }

    /// The daemon is about to end (`STOPPING=1`).
    pub fn stopping(self) {
        send(&[NotifyState::Stopping]);
    }

    /// One line for `systemctl status` (`STATUS=`).
    pub fn status(self, line: &str) {
        // A line break would start another assignment.
        send(&[NotifyState::Status(&line.replace('\n', " "))]);
    }

    /// The daemon is alive (`WATCHDOG=1`); see [`watchdog_interval`].
    pub fn watchdog(self) {
        send(&[NotifyState::Watchdog]);
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be notified");
    }
}

/// How often [`Notifier::watchdog`] is to be called: half of what the unit's `WatchdogSec=`
/// allows, as sd_watchdog_enabled(3) recommends. `None` when no watchdog waits for this process.
pub fn watchdog_interval() -> Option<Duration> {
    interval(
        std::env::var("WATCHDOG_USEC").ok().as_deref(),
        std::env::var("WATCHDOG_PID").ok().as_deref(),
        std::process::id(),
    )
}

fn interval(usec: Option<&str>, pid: Option<&str>, me: u32) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok().filter(|&usec| usec > 0)?;
    if let Some(pid) = pid
        && pid.parse() != Ok(me)
    {
        return None;
    }
    Some(Duration::from_micros(usec) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_watchdog_time() {
        assert_eq!(
            interval(Some("30000000"), Some("7"), 7),
            Some(Duration::from_secs(15))
        );
        assert_eq!(
            interval(Some("1000"), None, 7),
            Some(Duration::from_micros(500))
        );
    }

    #[test]
    fn no_watchdog_for_us() {
        assert_eq!(interval(None, None, 7), None);
        assert_eq!(interval(Some("30000000"), Some("8"), 7), None);
        assert_eq!(interval(Some("0"), None, 7), None);
        assert_eq!(interval(Some("soon"), None, 7), None);
    }
}
