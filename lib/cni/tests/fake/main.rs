//! All verbs, against plugins that do as they are told.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod attaching;
mod faults;
mod refusals;
mod world;
