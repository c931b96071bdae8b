//! Tasks: what is done in the background, each in a process of its own, as `fork_worker` does it. A task whose process dies has the status
//! `unexpected status`.

mod begin;
mod log;
mod upid;
mod work;

pub use begin::begin;
pub use log::Line;
pub use log::exit_status;
pub use log::lines;
pub use upid::Upid;
pub use upid::process_start;
pub use work::Work;
pub use work::run_worker;
