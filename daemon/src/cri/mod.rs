//! The edge: CRI v1 over gRPC.
//!
//! `runtime` and `image` implement the two services; each method converts, calls one function of
//! the daemon, and converts back. `convert` holds the conversions, `status` maps errors to gRPC
//! codes and logs them once.

mod convert;
mod image;
mod invalid;
mod runtime;
mod status;

pub(crate) use image::Images;
pub(crate) use invalid::InvalidField;
pub(crate) use runtime::Pods;
pub(crate) use status::refuse;
