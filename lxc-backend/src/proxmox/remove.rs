//! Removing a pod's container, and finding those of which something is left.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nexcage_command::{Command, Program};
use nexcage_sandbox::{SandboxError, SandboxId, SandboxSpec};

use super::backend::ProxmoxBackend;
use super::confs::{ConfError, Confs, Owner, include_of};
use super::ct::include_path;
use super::options::StartMode;
use super::pmxcfs::gone;
use super::vmid::{all_marked, marked};
use crate::container::{Engine, blocking};

/// How long systemd may take to forget a unit.
const FORGET_DEADLINE: Duration = Duration::from_secs(10);

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
        let of = id.clone();
        let removed = tokio::task::spawn_blocking(move || remove_all(&engine, &confs, &of));
        let doing = "remove the container";
        let removed = removed
            .await
            .map_err(|e| SandboxError::step(id, doing)(e))?;
        let numbers = removed.map_err(|error| match &error {
            RemoveError::Conf(ConfError::NoQuorum { .. } | ConfError::NotMounted { .. }) => {
                self.engine.unavailable_by(&error)
            }
            _ => SandboxError::step(id, doing)(error),
        })?;
        if let StartMode::Api(_) = self.options.start {
            for vmid in numbers {
                forget_unit(vmid).await;
            }
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

/// Removes all containers of a sandbox, as far as it can; the first failure counts. Says which there were.
fn remove_all(engine: &Engine, confs: &Confs, id: &SandboxId) -> Result<Vec<u32>, RemoveError> {
    let numbers = marked(&engine.options().lxc_path, id)?;
    let mut outcome = Ok(());
    for vmid in &numbers {
        outcome = outcome.and(remove_one(engine, confs, id, *vmid));
    }
    outcome.map(|()| numbers)
}

/// Removes the configuration first and the marker last: by that the rest is found again.
fn remove_one(
    engine: &Engine,
    confs: &Confs,
    id: &SandboxId,
    vmid: u32,
) -> Result<(), RemoveError> {
    let name = vmid.to_string();
    let directory = engine.directory(&name, id);
    match confs.remove(vmid, id)? {
        Owner::Foreign => {
            let path = confs.path(vmid);
            tracing::warn!(%path, sandbox = %id, "not removed: it is not of this pod, though its number was");
            return Ok(directory.give_up()?);
        }
        Owner::Ours(text) => {
            if let Some(include) = include_of(&text, vmid, id) {
                gone(std::fs::remove_file(include))?;
            }
        }
        Owner::Nobody => {}
    }
    nexcage_failpoint::hit("pve.conf-removed");
    engine.remove_container(&name, &directory)?;
    nexcage_failpoint::hit("pve.removed");
    Ok(())
}

/// A container that was ended by a signal is a failed unit to systemd, which remembers it.
async fn forget_unit(vmid: u32) {
    let Ok(systemctl) = Program::find("systemctl", "systemd") else {
        return;
    };
    let unit = format!("pve-container@{vmid}.service");
    let command = Command::new(&systemctl, FORGET_DEADLINE)
        .args(["reset-failed", &unit])
        .run();
    if let Err(error) = command.await {
        // It did not fail, usually.
        tracing::debug!(%unit, %error, "systemd has nothing to forget");
    }
}
