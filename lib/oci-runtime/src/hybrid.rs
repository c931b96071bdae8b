//! Creating containers on hosts that still mount cgroup v1 controllers.
//!
//! Even with `--cgroup-manager=disabled`, `crun create` (1.8 to 1.21) refuses such a host as long as
//! cgroup v2 has any controller of its own, which is so when a controller is mounted neither here nor there
//! (seen: hugetlb). crun then runs in a mount namespace of its own in which the list of these controllers reads as
//! empty; conmon stays outside, because it would keep every mount of the host alive as long as the container.

use camino::Utf8PathBuf;
use nexcage_command::{Program, ProgramError};

use crate::options::{CgroupManager, OciRuntimeOptions};

/// Where cgroup v2 is on such hosts (systemd's "hybrid" layout; crun looks nowhere else).
const CONTROLLERS: &str = "/sys/fs/cgroup/unified/cgroup.controllers";

/// `$0` is mount(8), `$@` is crun. The mount point is made private first, so that the bind mount does not show
/// outside; all others keep their propagation, which volumes need.
const SCRIPT: &str = "\"$0\" --make-private /sys/fs/cgroup/unified \
    && \"$0\" --bind /dev/null /sys/fs/cgroup/unified/cgroup.controllers \
    && exec \"$@\"";

/// A program to run and the arguments that come before crun's own.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) program: Program,
    pub(crate) args: Vec<String>,
}

/// How to call `crun create` on this host.
pub(crate) fn create_runtime(options: &OciRuntimeOptions) -> Result<Runtime, ProgramError> {
    // A read of a few bytes that the kernel has in memory.
    let stray = || std::fs::read(CONTROLLERS).is_ok_and(|list| !list.is_empty());
    if options.cgroup_manager == CgroupManager::Cgroupfs || !stray() {
        return Ok(Runtime {
            program: options.crun.clone(),
            args: Vec::new(),
        });
    }
    let path = |name, package| Program::find(name, package).map(|p| p.path().to_owned());
    let mut args: Vec<String> = ["--mount", "--propagation=unchanged", "--"]
        .map(str::to_owned)
        .into();
    let shell: [Utf8PathBuf; 2] = [path("sh", "dash")?, path("mount", "mount")?];
    let [sh, mount] = shell.map(Utf8PathBuf::into_string);
    args.extend([sh, "-c".to_owned(), SCRIPT.to_owned(), mount]);
    args.push(options.crun.to_string());
    Ok(Runtime {
        program: Program::find("unshare", "util-linux")?,
        args,
    })
}
