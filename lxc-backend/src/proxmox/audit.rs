//! What a pod's container is configured to, and what others made of that.

use std::io;
use std::path::Path;

use nexcage_sandbox::{Audit, SandboxError, SandboxSpec};

use super::backend::ProxmoxBackend;
use super::conf::{compare, edit, limits};
use super::confs::{ConfError, Owner};
use super::node::NodeSize;
use crate::container::blocking;

impl ProxmoxBackend {
    /// Writes the pod's limits into its configuration, where Proxmox shows them; everything else there stays.
    pub(super) async fn write_limits(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        let id = &spec.id;
        let doing = "change the container's limits";
        let Some(ct) = self.find(spec).await? else {
            return Err(SandboxError::step(id, doing)(self.unmarked()));
        };
        let node = blocking(id, "measure the node", NodeSize::read).await?;
        let changes = limits(&spec.resources, node);
        let (confs, of, vmid) = (self.confs.clone(), id.clone(), ct.vmid);
        let same = changes.clone();
        let changed =
            tokio::task::spawn_blocking(move || confs.change(vmid, &of, |text| edit(text, &same)));
        let changed = changed
            .await
            .map_err(|e| SandboxError::step(id, doing)(e))?;
        changed.map_err(|error| match &error {
            ConfError::NoQuorum { .. } | ConfError::NotMounted { .. } => {
                self.engine.unavailable_by(&error)
            }
            _ => SandboxError::step(id, doing)(error),
        })?;
        blocking(id, doing, move || {
            // Without a copy there is nothing to compare with later.
            let Some(written) = read(ct.written.as_std_path())? else {
                return Ok(());
            };
            std::fs::write(&ct.written, edit(&written, &changes))
        })
        .await
    }

    /// Compares the configuration that is there with the one that was written.
    pub(super) async fn audit_conf(&self, spec: &SandboxSpec) -> Result<Audit, SandboxError> {
        let id = &spec.id;
        let Some(ct) = self.find(spec).await? else {
            return Ok(Audit::Lost {
                reason: self.unmarked().to_string(),
            });
        };
        let (confs, of, vmid) = (self.confs.clone(), id.clone(), ct.vmid);
        let owner = tokio::task::spawn_blocking(move || confs.owner(vmid, &of));
        let doing = "read the container's configuration";
        let owner = owner.await.map_err(|e| SandboxError::step(id, doing)(e))?;
        let path = self.confs.path(vmid);
        let found = match owner.map_err(SandboxError::step(id, doing))? {
            Owner::Nobody => {
                let reason = format!("{path} was removed");
                return Ok(Audit::Lost { reason });
            }
            Owner::Foreign => {
                let reason = format!(
                    "{path} is not of this pod any more: it does not include {}",
                    ct.include
                );
                return Ok(Audit::Lost { reason });
            }
            Owner::Ours(text) => text,
        };
        let written = ct.written.clone();
        let written = blocking(id, "read what was written", move || {
            read(written.as_std_path())
        });
        let Some(written) = written.await? else {
            return Ok(Audit::AsMade);
        };
        let edits = compare(&written, &found);
        Ok(match edits.is_empty() {
            true => Audit::AsMade,
            false => Audit::Edited(edits),
        })
    }

    fn unmarked(&self) -> io::Error {
        let lxc_path = &self.engine.options().lxc_path;
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no directory in {lxc_path} is marked as the pod's"),
        )
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
