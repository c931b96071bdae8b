//! Driving crun and conmon.

mod create;
mod error;
mod exec;
mod exit;
mod lifecycle;
mod options;
mod runtime;

pub use create::CreateContainer;
pub use create::CreateError;
pub use create::Created;
pub use error::OciError;
pub use exec::ExecError;
pub use exec::ExecOutput;
pub use exec::ExecSync;
pub use exit::ExitRecord;
pub use lifecycle::State;
pub use lifecycle::Status;
pub use options::CgroupManager;
pub use options::OciRuntimeOptions;
pub use runtime::OciRuntime;
