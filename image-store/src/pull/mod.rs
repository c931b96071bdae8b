//! From a reference to a recorded image.

mod error;
mod progress;

pub use error::PullError;
pub use progress::LayerProgress;
pub use progress::LayerState;
pub use progress::ProgressSender;
pub use progress::PullPhase;
pub use progress::PullProgress;
