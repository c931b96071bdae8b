//! Starting a process that is in its cgroup from the first moment on.
//!
//! A process that exists can only be moved, and each move waits for a grace period of the kernel's, 7 ms and more.
//! clone3(2) makes it in its place. What std does for a new process is done here too: signals as by default, only
//! the files that it is given, and failures before exec reported to the parent.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::sync::Once;

use camino::Utf8Path;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

/// Flags of clone3(2), from `linux/sched.h`; libc has some of them cut to 32 bits.
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` up to its version of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What a process shall be.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Path of the program.
    pub(crate) program: CString,
    /// All arguments, the program's name first.
    pub(crate) args: Vec<CString>,
    /// The whole environment, each `name=value`.
    pub(crate) env: Vec<CString>,
    /// Where it runs.
    pub(crate) directory: CString,
    /// The files it has, by the numbers it has them under; no others.
    pub(crate) files: Vec<(OwnedFd, RawFd)>,
    /// A cgroup v2 directory.
    pub(crate) cgroup: Option<OwnedFd>,
}

/// A process that was made.
#[derive(Debug)]
pub(crate) struct Born {
    /// Its number. Nobody else can get it before it is waited for.
    pub(crate) pid: Pid,
    /// Becomes readable when it ends (pidfd_open(2)).
    pub(crate) pidfd: OwnedFd,
}

/// Text for the kernel.
pub(crate) fn c_string(text: impl Into<OsString>) -> io::Result<CString> {
    Ok(CString::new(text.into().into_vec())?)
}

/// Opens a cgroup for [`Plan::cgroup`].
pub(crate) fn open_cgroup(directory: &Utf8Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(directory.as_std_path(), flags, Mode::empty()).map_err(|e| {
        let e = io::Error::from(e);
        io::Error::new(e.kind(), format!("{directory}: {e}"))
    })
}

/// Makes the process, in a process group of its own. When this returns, it runs the program.
pub(crate) fn spawn(plan: &Plan) -> io::Result<Born> {
    static CHILDREN_ARE_OURS: Once = Once::new();
    CHILDREN_ARE_OURS.call_once(|| {
        // SAFETY: a plain system call. Whoever ignores this signal, as a careless caller may have made us, is told of no
        // child's end (wait(2), "ECHILD"); it has no handler in this program.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    });
    let (answer, report) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut child = Child::prepare(plan, &report);
    // No handler of ours may run in the child: it would write to what it shares with us.
    let old = block_signals()?;
    // SAFETY: the child does nothing but `run`, which keeps the rule.
    let made = unsafe { clone(plan.cgroup.as_ref()) };
    if let Ok(None) = made {
        child.run();
    }
    set_signals(&old)?;
    let Some(born) = made? else {
        unreachable!("the child has become the program");
    };
    drop(report);
    match failure(&answer)? {
        None => Ok(born),
        Some(error) => {
            waitpid(Some(born.pid), WaitOptions::empty())?;
            Err(error)
        }
    }
}

/// Why the child could not execute its program; nothing if the pipe is closed by its becoming one.
fn failure(answer: &OwnedFd) -> io::Result<Option<io::Error>> {
    let mut number = [0; 4];
    loop {
        match rustix::io::read(answer, &mut number) {
            Ok(4) => {
                let number = i32::from_ne_bytes(number);
                return Ok(Some(io::Error::from_raw_os_error(number)));
            }
            // Four bytes are written at once (pipe(7)).
            Ok(_) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// fork(2), with a pidfd and in a cgroup; `None` in the child, where no signal has a handler any more.
///
/// # Safety
///
/// Other threads may have held locks, the allocator's for one, which nobody will ever release in the child: until it
/// executes a program it may only do what is async-signal-safe (signal-safety(7)).
pub(crate) unsafe fn clone(cgroup: Option<&OwnedFd>) -> io::Result<Option<Born>> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the structure is the kernel's, lives until the call is over, and names no stack: as after fork, the child goes
    // on with a copy of this one.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match pid {
        0 => Ok(None),
        ..0 => Err(io::Error::last_os_error()),
        pid => {
            // SAFETY: the kernel has just opened it for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
            Ok(Some(Born { pid, pidfd }))
        }
    }
}

fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: both sets are plain data, and are filled in before they are read.
    unsafe {
        let mut all = std::mem::zeroed();
        let mut old = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old) {
            0 => Ok(old),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    }
}

fn set_signals(mask: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is one that the kernel gave.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) } {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

/// All that the child needs, allocated before it exists.
struct Child<'a> {
    plan: &'a Plan,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// Where each file is, where it is put out of the way, and the number it gets.
    moves: Vec<(RawFd, RawFd, RawFd)>,
    /// Above all numbers that are given.
    floor: RawFd,
    report: BorrowedFd<'a>,
    empty: libc::sigset_t,
}

impl<'a> Child<'a> {
    fn prepare(plan: &'a Plan, report: &'a OwnedFd) -> Self {
        use std::os::fd::AsFd;
        let pointers = |texts: &[CString]| {
            let pointers = texts.iter().map(|text| text.as_ptr());
            pointers.chain([ptr::null()]).collect()
        };
        let files = plan.files.iter();
        Self {
            plan,
            argv: pointers(&plan.args),
            envp: pointers(&plan.env),
            moves: files
                .clone()
                .map(|(file, number)| (file.as_raw_fd(), -1, *number))
                .collect(),
            floor: files.map(|(_, number)| number + 1).max().unwrap_or(3),
            report: report.as_fd(),
            // SAFETY: a set of signals is plain data, and all zeros is the empty one on Linux.
            empty: unsafe { std::mem::zeroed() },
        }
    }

    /// In the child: becomes the program, or tells why not.
    fn run(&mut self) -> ! {
        // SAFETY: write and _exit are async-signal-safe; the descriptor is open, the buffer is on this stack.
        unsafe {
            let mut report = self.report.as_raw_fd();
            let number = match self.become_program(&mut report) {
                Ok(never) => match never {},
                Err(number) => number.to_ne_bytes(),
            };
            libc::write(report, number.as_ptr().cast(), number.len());
            libc::_exit(127)
        }
    }

    /// # Safety
    ///
    /// Only in the child. Allocates nothing, takes no lock; all calls are async-signal-safe system calls.
    unsafe fn become_program(
        &mut self,
        report: &mut RawFd,
    ) -> Result<std::convert::Infallible, i32> {
        // SAFETY: pointers are those of `prepare`, to zero-terminated texts and lists that `self` keeps.
        unsafe {
            // First above all numbers that are given, so that no file is closed that is still needed.
            *report = checked(libc::fcntl(*report, libc::F_DUPFD_CLOEXEC, self.floor))?;
            for (file, above, _) in &mut self.moves {
                *above = checked(libc::fcntl(*file, libc::F_DUPFD_CLOEXEC, self.floor))?;
            }
            for (_, above, number) in &self.moves {
                checked(libc::dup2(*above, *number))?;
            }
            checked(libc::setpgid(0, 0))?;
            checked(libc::chdir(self.plan.directory.as_ptr()))?;
            // Rust ignores it, and who ignores a signal does so after exec too.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            let none = ptr::null_mut();
            checked(libc::sigprocmask(
                libc::SIG_SETMASK,
                &raw const self.empty,
                none,
            ))?;
            let (argv, envp) = (self.argv.as_ptr(), self.envp.as_ptr());
            libc::execve(self.plan.program.as_ptr(), argv, envp);
        }
        Err(errno())
    }
}

fn checked(result: i32) -> Result<i32, i32> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// As `io::Error::last_os_error`, which is not said to be async-signal-safe.
fn errno() -> i32 {
    // SAFETY: the address is that of this thread's own variable.
    unsafe { *libc::__errno_location() }
}
