//! The first process of a pod, in the pod's cgroup before it does anything.

use std::time::Duration;

use nexcage_command::{Command, CommandError, Held, Output, Program};
use nexcage_systemd::ScopeSpec;

use crate::backend::SandboxSpec;
use crate::cgroup::PodCgroups;
use crate::cgroupfs::{self, CgroupError};
use crate::tree::{CgroupTree, START, blocking};

/// How long a process that holds a cgroup may take to end when told to.
const HOLD_DEADLINE: Duration = Duration::from_secs(10);

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

/// A pod's cgroup that stays although nothing of the pod is in it yet: systemd ends a scope that has no processes. Dropping it lets go.
#[derive(Debug)]
pub struct HeldPod {
    /// A process that does nothing; none where the cgroup is a plain directory.
    held: Option<Held>,
}

impl HeldPod {
    /// Lets go, when something else is in the cgroup. [`settle`](CgroupTree::settle) must follow.
    ///
    /// # Errors
    ///
    /// [`CommandError`], if the process does not end.
    pub async fn release(self) -> Result<(), CommandError> {
        match self.held {
            Some(held) => held.cancel().await,
            None => Ok(()),
        }
    }
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
        let cgroups = self.fresh(spec).await?;
        if self.scopes().is_none() {
            let start = self.make_directory(&cgroups).await?;
            return Ok(command.cgroup(start).run().await?);
        }
        let held = command.start_held(holder)?;
        self.make_scope(spec, &cgroups, &held).await?;
        Ok(held.release().await?)
    }

    /// Makes the pod's cgroup and keeps it until [`HeldPod::release`], for a first process that somebody else starts and that finds its
    /// place by itself. Otherwise as [`run_first`](Self::run_first).
    ///
    /// # Errors
    ///
    /// A [`FirstError`] of any kind; something may be left then, see [`end`](Self::end).
    pub async fn hold(&self, spec: &SandboxSpec, holder: &Program) -> Result<HeldPod, FirstError> {
        let cgroups = self.fresh(spec).await?;
        if self.scopes().is_none() {
            self.make_directory(&cgroups).await?;
            return Ok(HeldPod { held: None });
        }
        // It is never released, so what it would become does not matter.
        let held = Command::new(holder, HOLD_DEADLINE)
            .discard_output()
            .start_held(holder)?;
        self.make_scope(spec, &cgroups, &held).await?;
        Ok(HeldPod { held: Some(held) })
    }

    /// The pod's cgroups, of which nothing is there.
    async fn fresh(&self, spec: &SandboxSpec) -> Result<PodCgroups, CgroupError> {
        let cgroups = self.locate(spec)?;
        if cgroups.pod.exists() {
            self.end(&cgroups).await?;
        }
        Ok(cgroups)
    }

    /// Makes the pod's cgroup where there are no scopes, and answers with the one for its first process.
    async fn make_directory(
        &self,
        cgroups: &PodCgroups,
    ) -> Result<camino::Utf8PathBuf, CgroupError> {
        self.make_pod(cgroups).await?;
        let start = self.make_start(cgroups, None).await?;
        nexcage_failpoint::hit("sandbox.cgroup-made");
        Ok(start)
    }

    /// Makes the pod's scope around a process.
    async fn make_scope(
        &self,
        spec: &SandboxSpec,
        cgroups: &PodCgroups,
        held: &Held,
    ) -> Result<(), CgroupError> {
        if let Some(scopes) = self.scopes() {
            let scope = self.scope(spec, held.pid())?;
            let started = scopes.start_scope(&scope).await;
            started.map_err(CgroupError::Scope)?;
        }
        self.make_start(cgroups, Some(held.pid())).await?;
        nexcage_failpoint::hit("sandbox.cgroup-made");
        Ok(())
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
