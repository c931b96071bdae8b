//! `nexcage.v1`: what the socket serves beside CRI, for nexcage's own command line.
//!
//! One file per service, as in `proto/nexcage/v1`. Requests are checked and errors mapped as those of CRI are.

mod checkpoints;
mod images;

pub(crate) use checkpoints::checkpoints;
pub(crate) use images::images;
