//! Removing a pod's container, and finding those of which something is left.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use nexcage_command::{Command, CommandError, Program};
use nexcage_sandbox::{SandboxError, SandboxId, SandboxSpec};

use super::backend::ProxmoxBackend;
use super::confs::{ConfError, Confs, Owner, include_of};
use super::ct::include_path;
use super::options::StartMode;
use super::pmxcfs::gone;
use super::vmid::{all_marked, marked};
use crate::container::{Engine, blocking};

/// How long systemd may take to answer.
const SYSTEMD_DEADLINE: Duration = Duration::from_secs(10);

/// How long a unit whose container is gone may take to end: a program of Proxmox's runs then.
const UNIT_PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks at it.
const UNIT_PAUSE: Duration = Duration::from_millis(50);

/// What Proxmox keeps of a container that it starts: what `lxc-start` says, and what its hooks warn of.
const MESSAGES: [&str; 2] = ["stderr", "warnings"];

/// A container could not be removed.
#[derive(Debug, thiserror::Error)]
enum RemoveError {
    /// Its configuration.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// Its directory, or what LXC left elsewhere.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ProxmoxBackend {
    /// Sees to it that nobody starts the container of a pod that has ended: the hook does it, unless it was not run.
    pub(super) async fn remove_includes(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        let (engine, id) = (Arc::clone(&self.engine), spec.id.clone());
        let run_dir = spec.run_dir.clone();
        blocking(&spec.id, "remove the LXC configuration", move || {
            for vmid in marked(&engine.options().lxc_path, &id)? {
                gone(std::fs::remove_file(include_path(&run_dir, vmid)))?;
            }
            Ok(())
        })
        .await?;
        nexcage_failpoint::hit("pve.include-removed");
        Ok(())
    }

    /// Gives back the sandbox's numbers, and removes everything that is there because of them.
    pub(super) async fn remove_containers(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let (engine, confs) = (Arc::clone(&self.engine), self.confs.clone());
        let (of, run_dir) = (id.clone(), self.options.run_dir.clone());
        let removed =
            tokio::task::spawn_blocking(move || remove_all(&engine, &confs, &run_dir, &of));
        let doing = "remove the container";
        let removed = removed
            .await
            .map_err(|e| SandboxError::step(id, doing)(e))?;
        let all = removed.map_err(|error| match &error {
            RemoveError::Conf(ConfError::NoQuorum { .. } | ConfError::NotMounted { .. }) => {
                self.engine.unavailable_by(&error)
            }
            _ => SandboxError::step(id, doing)(error),
        })?;
        let by_api = matches!(self.options.start, StartMode::Api(_));
        for removed in all {
            // An administrator may have tried to start one that was nexcage's to start.
            if by_api || removed.was_started_by_proxmox {
                forget_unit(removed.vmid).await;
            }
            self.vmids.give_back(removed.vmid);
        }
        Ok(())
    }

    /// Removes what is in the sandbox's run directory.
    pub(super) async fn remove_run_files(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        let directory = spec.run_dir.join("backend");
        blocking(&spec.id, "remove the LXC configuration", move || {
            gone(std::fs::remove_dir_all(directory))
        })
        .await
    }

    pub(super) async fn find_leftovers(&self) -> Result<Vec<SandboxId>, SandboxError> {
        let (engine, vmids) = (Arc::clone(&self.engine), Arc::clone(&self.vmids));
        let marked = move || {
            let lxc_path = &engine.options().lxc_path;
            let marked = all_marked(lxc_path)?.into_iter();
            // Others may have containers of this kind on this machine, with numbers of their own.
            let own = marked.filter(|(vmid, _)| vmids.contains(*vmid));
            // Whatever else a marker may say, it is no sandbox.
            let known = |id: &SandboxId| engine.cgroups().id_of(&engine.cgroups().name(id));
            Ok(own.filter_map(|(_, id)| known(&id)).collect())
        };
        self.engine.leftovers(marked).await
    }
}

impl ProxmoxBackend {
    /// Removes directories that a crash left before they were marked.
    pub(super) async fn sweep(&self) -> Result<(), SandboxError> {
        let (engine, vmids) = (Arc::clone(&self.engine), Arc::clone(&self.vmids));
        let confs = self.confs.clone();
        let lxc_path = &self.engine.options().lxc_path;
        let swept =
            tokio::task::spawn_blocking(move || vmids.sweep(&engine.options().lxc_path, &confs));
        let swept = swept.await.map_err(io::Error::from).flatten();
        swept.map_err(|e| {
            let reason = format!("what a crash left in {lxc_path} cannot be removed: {e}");
            self.engine.unavailable(reason)
        })
    }
}

/// A number that a sandbox had.
#[derive(Clone, Copy, Debug)]
struct Removed {
    vmid: u32,
    /// Whether Proxmox has ever started, or tried to start, the container.
    was_started_by_proxmox: bool,
}

/// Removes all containers of a sandbox, as far as it can; the first failure counts. Says which there were.
fn remove_all(
    engine: &Engine,
    confs: &Confs,
    run_dir: &Utf8Path,
    id: &SandboxId,
) -> Result<Vec<Removed>, RemoveError> {
    let mut all = Vec::new();
    let mut outcome = Ok(());
    for vmid in marked(&engine.options().lxc_path, id)? {
        match remove_one(engine, confs, run_dir, id, vmid) {
            Ok(removed) => all.extend(removed),
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    outcome.map(|()| all)
}

/// Removes the configuration first and the marker last: by that the rest is found again. `None` if it is somebody else's by now.
fn remove_one(
    engine: &Engine,
    confs: &Confs,
    run_dir: &Utf8Path,
    id: &SandboxId,
    vmid: u32,
) -> Result<Option<Removed>, RemoveError> {
    let name = vmid.to_string();
    let directory = engine.directory(&name, id);
    match confs.remove(vmid, id)? {
        Owner::Foreign => {
            let path = confs.path(vmid);
            tracing::warn!(%path, sandbox = %id, "not removed: it is not of this pod, though its number was");
            directory.give_up()?;
            return Ok(None);
        }
        Owner::Ours(text) => {
            if let Some(include) = include_of(&text, vmid, id) {
                gone(std::fs::remove_file(include))?;
            }
        }
        Owner::Nobody => {}
    }
    nexcage_failpoint::hit("pve.conf-removed");
    let was_started_by_proxmox = remove_messages(run_dir, vmid)?;
    engine.remove_container(&name, &directory)?;
    nexcage_failpoint::hit("pve.removed");
    Ok(Some(Removed {
        vmid,
        was_started_by_proxmox,
    }))
}

/// Says whether there were any.
fn remove_messages(run_dir: &Utf8Path, vmid: u32) -> io::Result<bool> {
    let mut any = false;
    for kind in MESSAGES {
        match std::fs::remove_file(run_dir.join(format!("ct-{vmid}.{kind}"))) {
            Ok(()) => any = true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(any)
}

/// A container that was ended by a signal is a failed unit to systemd, which remembers it. Nothing is stopped here: the number may be
/// somebody else's by now.
async fn forget_unit(vmid: u32) {
    let Ok(systemctl) = Program::find("systemctl", "systemd") else {
        return;
    };
    let unit = format!("pve-container@{vmid}.service");
    let forgotten = async {
        let begun = Instant::now();
        let mut state = unit_state(&systemctl, &unit).await?;
        while is_ending(&state) && begun.elapsed() < UNIT_PATIENCE {
            tokio::time::sleep(UNIT_PAUSE).await;
            state = unit_state(&systemctl, &unit).await?;
        }
        if state == "failed" {
            let command = Command::new(&systemctl, SYSTEMD_DEADLINE);
            command.args(["reset-failed", &unit]).run().await?;
        }
        Ok::<_, CommandError>(())
    };
    if let Err(error) = forgotten.await {
        tracing::debug!(%unit, %error, "systemd does not forget it");
    }
}

/// `inactive` also of a unit that systemd does not know.
async fn unit_state(systemctl: &Program, unit: &str) -> Result<String, CommandError> {
    let command = Command::new(systemctl, SYSTEMD_DEADLINE);
    let show = ["show", "--property=ActiveState", "--value", unit];
    let output = command.args(show).run().await?;
    Ok(output.stdout_text().trim().to_owned())
}

/// Also while systemd has not heard yet that its process has ended.
fn is_ending(state: &str) -> bool {
    matches!(state, "active" | "deactivating")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proxmox_says_of_a_container_goes_with_it() {
        let temp = tempfile::tempdir().unwrap();
        let run_dir = Utf8Path::from_path(temp.path()).unwrap();
        assert!(!remove_messages(&run_dir.join("none"), 100).unwrap());
        for name in ["ct-100.stderr", "ct-100.warnings", "ct-1001.stderr"] {
            std::fs::write(run_dir.join(name), "").unwrap();
        }
        assert!(remove_messages(run_dir, 100).unwrap());
        assert!(!remove_messages(run_dir, 100).unwrap());
        let mut left = run_dir.read_dir_utf8().unwrap();
        assert_eq!(left.next().unwrap().unwrap().file_name(), "ct-1001.stderr");
        assert!(left.next().is_none());
    }
}
