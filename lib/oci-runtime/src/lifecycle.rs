//! A created container's way to its end.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use camino::Utf8Path;
use oci_spec::runtime::LinuxResources;
use rustix::process::Signal;
use serde::Deserialize;

use crate::error::OciError;
use crate::files::{Files, follow};
use crate::options::CgroupManager;
use crate::process::Stat;
use crate::runtime::memory_file;
use crate::{OciRuntime, cgroup};

/// Time that conmon has to write the last log lines and the exit file once its container is dead.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where a container is in its life (OCI runtime specification, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waits for `start`.
    Created,
    /// Runs.
    Running,
    /// Its first process has ended.
    Stopped,
    /// Frozen.
    Paused,
}

/// What crun says of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct State {
    /// Where it is.
    pub status: Status,
    /// Its first process, as the host numbers it; 0 when stopped.
    pub pid: u32,
}

impl OciRuntime {
    /// Starts a created container.
    ///
    /// # Errors
    ///
    /// [`OciError::NotFound`], or [`OciError::Refused`] with what crun says, also for a container that was started
    /// already.
    pub async fn start(&self, id: &str) -> Result<(), OciError> {
        let command = self.crun(&self.files(id)?).args(["start", id]);
        self.call(id, "start", command).await?;
        nexcage_failpoint::hit("oci.started");
        Ok(())
    }

    /// Where a container is.
    ///
    /// # Errors
    ///
    /// [`OciError::NotFound`] if there is none.
    pub async fn state(&self, id: &str) -> Result<State, OciError> {
        let command = self.crun(&self.files(id)?).args(["state", id]);
        let output = self.call(id, "query", command).await?;
        let state: State =
            serde_json::from_slice(&output.stdout).map_err(|e| OciError::Refused {
                id: id.to_owned(),
                doing: "query",
                message: format!("{e} in {}", output.stdout_text().trim()),
            })?;
        // crun takes a dead process that nobody has waited for as running.
        if state.pid != 0 && Stat::of(state.pid).is_none_or(Stat::is_dead) {
            return Ok(State {
                status: Status::Stopped,
                pid: 0,
            });
        }
        Ok(state)
    }

    /// Sends a signal to the first process, or to `all` processes of the container. `Ok` when it is already gone.
    ///
    /// # Errors
    ///
    /// Any [`OciError`] but `NotFound`.
    pub async fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), OciError> {
        let files = self.files(id)?;
        let number = Signal::from_named_raw(signal).ok_or_else(|| OciError::Unable {
            id: id.to_owned(),
            reason: format!("{signal} is not the number of a signal, see signal(7)"),
        })?;
        if all && let Ok(group) = follow(&files.cgroup).await {
            let sent = match number {
                // One write, which no process can outrun by forking.
                Signal::KILL => cgroup::kill(&group).await,
                other => cgroup::signal(&group, other).await,
            };
            return sent.map_err(in_cgroup(id, &group));
        }
        let mut command = self.crun(&files).arg("kill");
        if all {
            command = command.arg("--all");
        }
        let command = command.args([id, &signal.to_string()]);
        match self.call(id, "kill", command).await {
            Ok(_) | Err(OciError::NotFound { .. }) => Ok(()),
            Err(refused @ OciError::Refused { .. }) => match self.state(id).await {
                Ok(State {
                    status: Status::Stopped,
                    ..
                })
                | Err(OciError::NotFound { .. }) => Ok(()),
                _ => Err(refused),
            },
            Err(e) => Err(e),
        }
    }

    /// Removes a stopped or created container; with `force` one in any state, and whatever a crash left of its
    /// creation. Its last processes, its conmon and their cgroups go too. `Ok` when there is none.
    ///
    /// # Errors
    ///
    /// [`OciError::Refused`] without `force` if it runs.
    pub async fn delete(&self, id: &str, force: bool) -> Result<(), OciError> {
        let files = self.files(id)?;
        let group = follow(&files.cgroup).await.ok();
        let conmon = follow(&files.conmon_cgroup).await.ok();
        // A conmon whose container is dead ends by itself, one that has not created it yet does not.
        let patience = match exists(id, &files.crun_status).await? {
            true => PATIENCE,
            false => Duration::ZERO,
        };
        if force {
            kill_all(id, group.as_deref()).await?;
        }
        self.crun_delete(id, &files, force).await?;
        if let Some(conmon) = &conmon {
            let waited = cgroup::wait_until_empty(conmon, patience).await;
            waited.map_err(in_cgroup(id, conmon))?;
            // From then on not even a conmon that is just being started can do anything.
            destroy(id, conmon).await?;
        }
        // Others than the first process may live on where the pod shares its pid namespace; and a conmon that was
        // still at work may have created the container after all.
        kill_all(id, group.as_deref()).await?;
        self.crun_delete(id, &files, true).await?;
        if let Some(group) = &group {
            destroy(id, group).await?;
        }
        nexcage_failpoint::hit("oci.deleted");
        Ok(())
    }

    async fn crun_delete(&self, id: &str, files: &Files, force: bool) -> Result<(), OciError> {
        // Also for a directory without status, as a killed crun leaves it.
        if !exists(id, &files.crun).await? {
            return Ok(());
        }
        let call = |force: bool| {
            let mut command = self.crun(files).arg("delete");
            if force {
                command = command.arg("--force");
            }
            self.call(id, "delete", command.arg(id))
        };
        let mut deleted = call(force).await;
        // crun refuses a dead process that nobody has waited for.
        if !force
            && matches!(deleted, Err(OciError::Refused { .. }))
            && let Ok(State {
                status: Status::Stopped,
                ..
            }) = self.state(id).await
        {
            deleted = call(true).await;
        }
        match deleted {
            Ok(_) | Err(OciError::NotFound { .. }) => {}
            Err(e) => return Err(e),
        }
        // crun before 1.9 leaves the directory if there is no status in it.
        remove_tree(id, &files.crun).await
    }

    /// Sets limits.
    ///
    /// # Errors
    ///
    /// [`OciError::Unable`] where crun does no cgroups.
    pub async fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), OciError> {
        let files = self.files(id)?;
        if self.options.cgroup_manager == CgroupManager::Disabled {
            return Err(OciError::Unable {
                id: id.to_owned(),
                reason: "limits need a host with cgroup v2 only \
                         (kernel parameter systemd.unified_cgroup_hierarchy=1)"
                    .to_owned(),
            });
        }
        let file = serde_json::to_vec(resources)
            .map_err(io::Error::from)
            .and_then(|json| memory_file(&json))
            .map_err(|source| OciError::File {
                id: id.to_owned(),
                path: "memfd".into(),
                source,
            })?;
        let command = self
            .crun(&files)
            .args(["update", "--resources=/proc/self/fd/3", id])
            .file(file, 3);
        self.call(id, "update", command).await.map(drop)
    }

    /// Ids of all containers of which anything is left: crun's state, or a conmon's directory.
    ///
    /// # Errors
    ///
    /// If a directory cannot be read; a missing one has no containers.
    pub async fn list(&self) -> io::Result<Vec<String>> {
        let mut ids = BTreeSet::new();
        for directory in [&self.options.root, &self.options.monitor_dir] {
            let mut entries = match tokio::fs::read_dir(directory).await {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            while let Some(entry) = entries.next_entry().await? {
                // Not the directory of sockets, nor crun's cache (`.cache`, seen with crun 1.21).
                if let Ok(name) = entry.file_name().into_string()
                    && self.files(&name).is_ok()
                {
                    ids.insert(name);
                }
            }
        }
        Ok(ids.into_iter().collect())
    }
}

async fn kill_all(id: &str, group: Option<&Utf8Path>) -> Result<(), OciError> {
    match group {
        Some(group) => cgroup::kill(group).await.map_err(in_cgroup(id, group)),
        None => Ok(()),
    }
}

async fn destroy(id: &str, group: &Utf8Path) -> Result<(), OciError> {
    cgroup::destroy(group).await.map_err(in_cgroup(id, group))
}

fn in_cgroup(id: &str, group: &Utf8Path) -> impl FnOnce(io::Error) -> OciError {
    let (id, path) = (id.to_owned(), group.to_owned());
    move |source| OciError::File { id, path, source }
}

async fn exists(id: &str, path: &Utf8Path) -> Result<bool, OciError> {
    tokio::fs::try_exists(path)
        .await
        .map_err(|source| OciError::File {
            id: id.to_owned(),
            path: path.to_owned(),
            source,
        })
}

/// Removes a directory. `Ok` when there is none.
pub(crate) async fn remove_tree(id: &str, path: &Utf8Path) -> Result<(), OciError> {
    match tokio::fs::remove_dir_all(path).await {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(OciError::File {
            id: id.to_owned(),
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::options;

    #[tokio::test]
    async fn what_is_no_container_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let options = crate::OciRuntimeOptions {
            root: dir.join("crun"),
            monitor_dir: dir.join("m"),
            ..options()
        };
        for name in ["crun/.cache", "crun/one", "m/s", "m/one", "m/two"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let listed = OciRuntime::new(options).list().await.unwrap();
        assert_eq!(listed, ["one", "two"]);
    }
}
