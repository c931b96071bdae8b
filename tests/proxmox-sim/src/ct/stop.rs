//! Stopping: `vm_stop`, and what stands around it.

use std::time::Duration;

use super::{Node, check_lock};
use crate::died::{Died, Outcome};
use crate::program::{run, wait_for};

/// How long the monitor may take to close its socket after `lxc-stop` has ended.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);

/// How a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// At once.
    Kill,
    /// By its halt signal, within this time; and then perhaps at once.
    Halt { within: Duration, then_kill: bool },
}

impl Node {
    /// The task `vzstop`.
    ///
    /// # Errors
    ///
    /// In Proxmox's words.
    pub fn stop(&self, vmid: u32) -> Outcome {
        self.locked(vmid, || {
            check_lock(&self.load(vmid)?, true)?;
            self.end(vmid, Manner::Kill)
        })
    }

    /// The task `vzshutdown`.
    ///
    /// # Errors
    ///
    /// In Proxmox's words; the container does not stop in time.
    pub fn shutdown(&self, vmid: u32, within: Duration, then_kill: bool) -> Outcome {
        self.locked(vmid, || {
            check_lock(&self.load(vmid)?, false)?;
            self.end(vmid, Manner::Halt { within, then_kill })
        })
    }

    /// The task `vzreboot`. Gives warnings.
    ///
    /// # Errors
    ///
    /// In Proxmox's words.
    pub fn reboot(&self, vmid: u32, within: Duration) -> Outcome<Vec<String>> {
        self.locked(vmid, || {
            if !self.is_running(vmid) {
                return Ok(Vec::new());
            }
            let manner = Manner::Halt {
                within,
                then_kill: true,
            };
            self.end(vmid, manner)?;
            let conf = self.load(vmid)?;
            self.start_locked(vmid, conf)
        })
    }

    pub(super) fn kill(&self, vmid: u32) -> Outcome {
        self.end(vmid, Manner::Kill)
    }

    fn end(&self, vmid: u32, manner: Manner) -> Outcome {
        if !self.is_running(vmid) {
            return Ok(());
        }
        let name = vmid.to_string();
        let lxc_path = self.house.options().lxc_path.as_str();
        let mut arguments = vec!["-P", lxc_path, "-n", &name];
        let seconds;
        let limit = match manner {
            Manner::Kill => {
                arguments.push("--kill");
                CLOSE_LIMIT
            }
            Manner::Halt { within, then_kill } => {
                if !then_kill {
                    arguments.push("--nokill");
                }
                seconds = within.as_secs().to_string();
                arguments.extend(["--timeout", &seconds]);
                within + Duration::from_secs(5)
            }
        };
        let stopped = run("lxc-stop", &arguments, limit);
        if let Err(died) = &stopped {
            eprintln!("{died}");
        }
        // After a failure Proxmox waits as long again for the socket to close.
        let closing = if stopped.is_ok() { CLOSE_LIMIT } else { limit };
        let closed = wait_for(closing, || (!self.is_running(vmid)).then_some(()));
        closed.ok_or_else(|| Died::new("container did not stop"))
    }
}
