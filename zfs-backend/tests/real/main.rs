//! The store on OpenZFS. As root, one test at a time: `--test-threads=1`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod checkpoints;
mod common;
mod crash;
mod databases;
mod life;
mod pools;
