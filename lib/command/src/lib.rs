//! The only place that starts a process.
//!
//! A [`Program`] is an absolute path that was found in fixed directories (never in
//! `PATH`) and checked when the daemon started. A [`Command`] is one call of it: no shell,
//! the environment cleared but for `PATH` and the C locale, standard input closed unless
//! given, a deadline that is not optional, and a process group of its own that is killed when the
//! deadline passes or the future is dropped. Every failure is one [`CommandError`]
//! with the command line, the status and both outputs.
//!
//! A program that leaves processes behind (a monitor that daemonizes, a shell with background jobs) is
//! called with [`Command::discard_output`] or [`Command::linger`], since those processes hold its output streams.
//!
//! A program that belongs in a cgroup is [made there](Command::cgroup) and never moved. Where the cgroup can only be made
//! around a process, as systemd does with scopes, it is started [held](Command::start_held): a small program (nexcage
//! itself, by [`hold`]) waits on a pipe in its place and becomes it when released. [`run_inside`] is for such small programs.
//!
//! There are no tasks and no channels: a call lives exactly as long as its future. The only thread is one that waits for the
//! end of a process that was killed because its future was dropped.
//!
//! Start reading at [`Command::run`].

mod call;
mod child;
mod error;
mod hold;
mod inside;
mod process;
mod program;
mod running;

pub use call::Command;
pub use call::Output;
pub use call::Stdin;
pub use error::CommandError;
pub use hold::Held;
pub use hold::hold;
pub use inside::run_inside;
pub use program::Program;
pub use program::ProgramError;
