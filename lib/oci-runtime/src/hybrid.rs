//! Creating containers on hosts that still mount cgroup v1 controllers.
//!
//! Even with `--cgroup-manager=disabled`, `crun create` (1.8 to 1.21) refuses such a host as long as
//! cgroup v2 has any controller of its own, which is so when a controller is mounted neither here nor there
//! (seen: hugetlb). crun then runs in a mount namespace of its own in which the list of these controllers reads as
//! empty; conmon stays outside, because it would keep every mount of the host alive as long as the container.
//!
//! Nor does crun put the container into a cgroup there. So it is itself started in that of the container.
//!
//! Both is done by a small program between conmon and crun, [`hybrid`]: moving the container once it exists costs 7 ms.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitCode;

use camino::Utf8Path;
use nexcage_command::Program;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::options::{CgroupManager, OciRuntimeOptions};

/// Where cgroup v2 is on such hosts (systemd's "hybrid" layout; crun looks nowhere else).
const MOUNT: &str = "/sys/fs/cgroup/unified";
const CONTROLLERS: &str = "/sys/fs/cgroup/unified/cgroup.controllers";

/// In the place of a cgroup: the one that the caller is in.
const HERE: &str = "-";

/// A program to run and the arguments that come before crun's own.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) program: Program,
    pub(crate) args: Vec<String>,
}

/// How to call `crun create` on this host, for a container that belongs in `cgroup`, or stays where crun is.
pub(crate) fn create_runtime(options: &OciRuntimeOptions, cgroup: Option<&Utf8Path>) -> Runtime {
    let needed = options.cgroup_manager == CgroupManager::Disabled
        && (cgroup.is_some() || has_stray_controllers());
    if !needed {
        return Runtime {
            program: options.crun.clone(),
            args: Vec::new(),
        };
    }
    let cgroup = cgroup.map_or(HERE, Utf8Path::as_str);
    Runtime {
        program: options.helper.clone(),
        args: vec!["hybrid".into(), cgroup.into(), options.crun.to_string()],
    }
}

/// A read of a few bytes that the kernel has in memory.
fn has_stray_controllers() -> bool {
    std::fs::read(CONTROLLERS).is_ok_and(|list| !list.is_empty())
}

/// The helper's side, for the first lines of `main`: `args` are those after `hybrid`, namely `<cgroup> <program> [args]`. Runs the program in
/// the cgroup, with the controllers hidden, and answers as it does.
///
/// Call it before there are threads or open files.
pub fn hybrid(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match hide_and_run(args.into_iter()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cannot run crun: {error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "becomes the program, in a process that does nothing else"
)]
fn hide_and_run(mut args: impl Iterator<Item = OsString>) -> io::Result<ExitCode> {
    let (Some(cgroup), Some(program)) = (args.next(), args.next()) else {
        return Err(io::Error::other("usage: hybrid <cgroup> <program> [args]"));
    };
    if has_stray_controllers() {
        hide()?;
    }
    if cgroup == HERE {
        return Err(std::process::Command::new(program).args(args).exec());
    }
    let cgroup = cgroup.to_str().map(Utf8Path::new);
    let cgroup = cgroup.ok_or_else(|| io::Error::other("the cgroup is not UTF-8"))?;
    let status = nexcage_command::run_inside(cgroup, &program, args)?;
    let signal = || 128 + status.signal().unwrap_or_default();
    let code = status.code().unwrap_or_else(signal);
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The mount point is made private first, so that the bind mount does not show outside; all others keep their
/// propagation, which volumes need.
fn hide() -> io::Result<()> {
    // SAFETY: unsafe for the sake of CLONE_FILES, which is not among the flags.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(MOUNT, MountPropagationFlags::PRIVATE)?;
    mount_bind("/dev/null", CONTROLLERS)?;
    Ok(())
}
