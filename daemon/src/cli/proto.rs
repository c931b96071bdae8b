//! `nexcage.v1`, the small service beside CRI: messages, client, and the trait that `crate::admin` implements.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

use std::fmt;

tonic::include_proto!("nexcage.v1");

/// `build.rs` leaves it out, because of the password.
impl fmt::Debug for PullRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reference,
            username,
            password: _,
        } = self;
        f.debug_struct("PullRequest")
            .field("reference", reference)
            .field("username", username)
            .finish_non_exhaustive()
    }
}
