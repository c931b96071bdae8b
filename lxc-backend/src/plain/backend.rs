//! Plain LXC.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use camino::Utf8Path;
use nexcage_sandbox::{
    CgroupTree, PodCgroups, RunningSandbox, SandboxBackend, SandboxError, SandboxId, SandboxInit,
    SandboxSpec, SandboxState, SharedNamespaces, validate_spec,
};

use crate::container::{Directory, Engine, LxcOptions, blocking, check, config, or_remove};

const NAME: &str = "lxc";

/// Pods as LXC containers.
#[derive(Debug)]
pub struct LxcBackend {
    engine: Arc<Engine>,
}

impl LxcBackend {
    /// Nothing is touched before the first call.
    pub fn new(options: LxcOptions, cgroups: Arc<CgroupTree>) -> Self {
        Self {
            engine: Arc::new(Engine::new(NAME, options, cgroups)),
        }
    }

    async fn try_start(&self, spec: &SandboxSpec) -> Result<RunningSandbox, SandboxError> {
        let cgroups = self.engine.locate(spec)?;
        let directory = self.directory(&spec.id);
        let shared = self.engine.shared_namespaces(spec).await?;
        self.write_config(spec, &cgroups, &directory, shared.as_ref())
            .await?;
        nexcage_failpoint::hit("lxc.config-written");

        self.engine
            .launch(spec, &self.name_of(&spec.id), &directory)
            .await?;
        drop(shared);
        nexcage_failpoint::hit("lxc.started");

        let init = self.engine.complete(spec, &cgroups).await?;
        Ok(self.running(&spec.id, init, cgroups))
    }

    fn running(&self, id: &SandboxId, init: SandboxInit, cgroups: PodCgroups) -> RunningSandbox {
        RunningSandbox {
            init,
            cgroups,
            container: Some(self.name_of(id)),
        }
    }

    async fn write_config(
        &self,
        spec: &SandboxSpec,
        cgroups: &PodCgroups,
        directory: &Directory,
        shared: Option<&SharedNamespaces>,
    ) -> Result<(), SandboxError> {
        let post_stop = post_stop(&cgroups.container);
        let text = self
            .engine
            .with_shell(spec, cgroups, shared, &post_stop, |shell| {
                config(spec, shell)
            })
            .await?;
        let directory = directory.clone();
        blocking(&spec.id, "write the LXC configuration", move || {
            directory.make()?;
            std::fs::write(directory.config(), text)
        })
        .await
    }

    async fn remove_files(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let (engine, name) = (Arc::clone(&self.engine), self.name_of(id));
        let directory = self.directory(id);
        blocking(id, "remove the LXC container", move || {
            engine.remove_container(&name, &directory)
        })
        .await?;
        nexcage_failpoint::hit("lxc.removed");
        Ok(())
    }

    fn name_of(&self, id: &SandboxId) -> String {
        self.engine.cgroups().name(id)
    }

    fn directory(&self, id: &SandboxId) -> Directory {
        self.engine.directory(&self.name_of(id), id)
    }
}

/// A command that ends the app containers when the sandbox has ended, however it ended, with no daemon needed: their
/// process namespaces are children of the host's, so they do not die with it.
///
/// LXC runs it with three words of its own behind it, which become the shell's `$0` to `$2`. It must succeed when LXC has
/// already removed the cgroup.
fn post_stop(container: &Utf8Path) -> String {
    let kill = container.join("cgroup.kill");
    format!("/bin/sh -c 'test ! -e {kill} || echo 1 >{kill}'")
}

/// Sandboxes of this nexcage that have a directory.
fn marked(engine: &Engine) -> io::Result<Vec<SandboxId>> {
    let mut ids = Vec::new();
    for entry in engine.options().lxc_path.read_dir_utf8()? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(id) = engine.cgroups().id_of(name)
            && engine.directory(name, &id).is_ours()
        {
            ids.push(id);
        }
    }
    Ok(ids)
}

#[async_trait]
impl SandboxBackend for LxcBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn check(&self) -> Result<(), SandboxError> {
        let checked = check(self.engine.options(), self.engine.cgroups()).await;
        checked.map_err(|reason| self.engine.unavailable(reason))
    }

    fn validate(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        validate_spec(NAME, spec, self.engine.cgroups())
    }

    async fn start(&self, spec: &SandboxSpec) -> Result<RunningSandbox, SandboxError> {
        self.validate(spec)?;
        or_remove(self, spec, self.try_start(spec).await).await
    }

    async fn inspect(&self, spec: &SandboxSpec) -> Result<SandboxState, SandboxError> {
        let cgroups = self.engine.locate(spec)?;
        Ok(match self.engine.cgroups().init(&cgroups).await {
            Some(init) => SandboxState::Running(self.running(&spec.id, init, cgroups)),
            None => SandboxState::Stopped,
        })
    }

    async fn update(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.engine.limit(spec).await
    }

    async fn stop(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.engine.end(spec).await
    }

    async fn remove(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.stop(spec).await?;
        self.remove_files(&spec.id).await
    }

    async fn leftovers(&self) -> Result<Vec<SandboxId>, SandboxError> {
        let engine = Arc::clone(&self.engine);
        let marked = move || marked(&engine);
        self.engine.leftovers(marked).await
    }

    async fn remove_leftover(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.engine.end_leftover(id).await?;
        self.remove_files(id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_succeeds_where_there_is_no_cgroup() {
        let hook = post_stop("/sys/fs/cgroup/pod/ct".into());
        assert_eq!(
            hook,
            "/bin/sh -c 'test ! -e /sys/fs/cgroup/pod/ct/cgroup.kill || echo 1 >/sys/fs/cgroup/pod/ct/cgroup.kill'"
        );
    }
}
