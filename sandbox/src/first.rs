//! The first process of a pod, in the pod's cgroup before it does anything.

use nexcage_command::{Command, CommandError, Output, Program};
use nexcage_systemd::ScopeSpec;

use crate::backend::SandboxSpec;
use crate::cgroup::PodCgroups;
use crate::cgroupfs::{self, CgroupError};
use crate::tree::{CgroupTree, START, blocking};

/// Why the first process of a pod did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// The pod's cgroup could not be made.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// It could not be started, or failed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl CgroupTree {
    /// Makes the pod's cgroup and runs a program in it, so that whatever the program leaves behind is the pod's.
    ///
    /// The program is in a cgroup of its own below the pod's, which [`settle`](Self::settle) removes: nothing may stay in it. Whatever
    /// an earlier try left is removed first. `holder` is a program with the subcommand `hold`
    /// ([`nexcage_command::hold`]): systemd makes a scope only around a process.
    ///
    /// # Errors
    ///
    /// A [`FirstError`] of any kind; something may be left then, see [`end`](Self::end).
    pub async fn run_first(
        &self,
        spec: &SandboxSpec,
        command: Command,
        holder: &Program,
    ) -> Result<Output, FirstError> {
        let cgroups = self.locate(spec)?;
        if cgroups.pod.exists() {
            self.end(&cgroups).await?;
        }
        let Some(scopes) = self.scopes() else {
            self.make_pod(&cgroups).await?;
            let start = self.make_start(&cgroups, None).await?;
            nexcage_failpoint::hit("sandbox.cgroup-made");
            return Ok(command.cgroup(start).run().await?);
        };
        let held = command.start_held(holder)?;
        let scope = self.scope(spec, held.pid())?;
        scopes
            .start_scope(&scope)
            .await
            .map_err(CgroupError::Scope)?;
        self.make_start(&cgroups, Some(held.pid())).await?;
        nexcage_failpoint::hit("sandbox.cgroup-made");
        Ok(held.release().await?)
    }

    fn scope(&self, spec: &SandboxSpec, first: u32) -> Result<ScopeSpec, CgroupError> {
        Ok(ScopeSpec {
            name: self.unit(&spec.id),
            slice: self.parent(&spec.cgroup_parent)?.slice().to_owned(),
            description: format!("pod {}/{}", spec.namespace, spec.name),
            pids: vec![first],
        })
    }

    /// Makes the cgroup where the first process is, and moves one there that exists: the pod's own must be without processes before
    /// its children can have controllers.
    async fn make_start(
        &self,
        cgroups: &PodCgroups,
        first: Option<u32>,
    ) -> Result<camino::Utf8PathBuf, CgroupError> {
        let cgroups = cgroups.clone();
        blocking(move || {
            let start = cgroups.pod.join(START);
            cgroupfs::make(&start)?;
            if let Some(first) = first {
                cgroupfs::enter(&start, first)?;
            }
            if cgroups.controllers {
                cgroupfs::enable_controllers(&cgroups.pod)?;
            }
            Ok(start)
        })
        .await
    }
}
