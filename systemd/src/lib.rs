//! systemd, as far as nexcage needs it.
//!
//! * [`Notifier`] tells the service manager what the daemon is doing (sd_notify(3)) and
//!   [`watchdog_interval`] how often it wants to hear; both are inert when the daemon was
//!   not started by systemd.
//! * [`activated_listener`] is the listening socket of a socket unit, if there is one.
//! * [`ScopeManager`] makes transient scopes, the units that hold pods. [`SystemdScopes`] asks
//!   systemd over D-Bus; [`FakeScopes`] does with plain cgroups what systemd would, for tests on
//!   machines where systemd is not init.
//! * [`slice_path`] says where in the cgroup tree a slice lives.
//!
//! There are no tasks of our own; zbus runs one per connection and ends it when the last
//! clone of [`SystemdScopes`] is dropped. Invariant: [`ScopeManager::start_scope`] returns only
//! after systemd's job ended, so the scope's cgroup exists then.
//!
//! Start reading at [`ScopeManager`].

mod activation;
mod dbus;
mod fake;

mod notify;
mod scope;
mod slice;

pub use activation::ActivationError;
pub use activation::activated_listener;
pub use dbus::SystemdScopes;
pub use fake::FakeScopes;

pub use notify::Notifier;
pub use notify::watchdog_interval;
pub use scope::ScopeError;
pub use scope::ScopeManager;
pub use scope::ScopeSpec;

pub use slice::SliceError;
pub use slice::slice_path;

/// Whether systemd is this machine's init (sd_booted(3)).
pub fn booted() -> bool {
    std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|m| m.is_dir())
}
