//! Pod sandboxes as LXC containers.

mod backend;

pub use backend::LxcBackend;
pub use backend::LxcOptions;
