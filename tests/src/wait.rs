//! Waiting for something to become true.
#![allow(
    clippy::disallowed_methods,
    reason = "tests have a thread of their own to block"
)]

use std::time::{Duration, Instant};

use anyhow::bail;

/// Looks again and again until `ready` gives something.
///
/// # Errors
///
/// An error of `ready`, at once; or, when `seconds` are over, one that says what was waited for.
pub fn until<T>(
    what: &str,
    seconds: u64,
    mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {seconds} s in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Looks until `ready` says yes.
///
/// # Errors
///
/// As [`until`].
pub fn until_true(
    what: &str,
    seconds: u64,
    mut ready: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    until(what, seconds, || Ok(ready()?.then_some(())))
}

/// Looks for `seconds` whether `still` says yes.
///
/// # Errors
///
/// An error of `still`; or one that says what ended, as soon as it does.
pub fn while_true(
    what: &str,
    seconds: u64,
    mut still: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        if !still()? {
            bail!("not for {seconds} s: {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
