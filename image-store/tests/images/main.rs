//! The image store against a registry in this process.

// Helpers of tests are not seen as tests by the lint.
#![allow(clippy::unwrap_used)]

mod auth;
mod collecting;
mod faults;
mod house;
mod image;
mod layer_store;
mod mirrors;
mod pulling;
mod refusals;
mod registry;
mod sharing;
mod tls;
