//! Scopes without systemd, for tests.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};

use crate::scope::{ScopeError, ScopeManager, ScopeSpec};
use crate::slice::slice_path;

/// Does with cgroups what systemd does with scopes: makes the slice and the scope's cgroup, moves processes there,
/// forgets a scope when its last process has ended, and removes its cgroups then.
///
/// Works below any cgroup v2 directory, and, seen from the outside, below any directory at all.
#[derive(Debug)]
pub struct FakeScopes {
    root: Utf8PathBuf,
    scopes: Mutex<Vec<(String, Utf8PathBuf)>>,
}

impl FakeScopes {
    /// `root` stands for the mount point of cgroup v2.
    pub fn new(root: impl Into<Utf8PathBuf>) -> Self {
        Self {
            root: root.into(),
            scopes: Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, Utf8PathBuf)>> {
        self.scopes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets go of scopes without processes, as systemd does when the kernel says that a cgroup is empty.
    fn collect(&self) {
        self.lock().retain(|(_, path)| {
            let alive = populated(path);
            if !alive {
                remove(path);
            }
            alive
        });
    }
}

fn populated(path: &Utf8Path) -> bool {
    match std::fs::read_to_string(path.join("cgroup.events")) {
        Ok(events) => events.lines().any(|line| line == "populated 1"),
        // Not a cgroup: what was written is what there is.
        Err(_) => std::fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|p| !p.is_empty()),
    }
}

/// Removes a tree of cgroups, bottom up; what is busy stays.
fn remove(path: &Utf8Path) {
    for entry in path.read_dir_utf8().into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(entry.path());
        }
    }
    let _ = std::fs::remove_dir(path);
}

fn failed(doing: &'static str, name: &str, source: io::Error) -> ScopeError {
    ScopeError::Call {
        doing,
        name: name.to_owned(),
        source: source.into(),
    }
}

#[async_trait]
impl ScopeManager for FakeScopes {
    async fn start_scope(&self, spec: &ScopeSpec) -> Result<(), ScopeError> {
        self.collect();
        let fail = |source| failed("start", &spec.name, source);
        if self.lock().iter().any(|(name, _)| *name == spec.name) {
            return Err(fail(io::ErrorKind::AlreadyExists.into()));
        }
        let slice = slice_path(&spec.slice).map_err(|e| fail(io::Error::other(e)))?;
        let path = self.root.join(slice).join(&spec.name);
        std::fs::create_dir_all(&path).map_err(fail)?;
        for pid in &spec.pids {
            if let Err(error) = std::fs::write(path.join("cgroup.procs"), pid.to_string()) {
                remove(&path);
                return Err(fail(error));
            }
        }
        self.lock().push((spec.name.clone(), path));
        Ok(())
    }

    async fn stop_scope(&self, name: &str) -> Result<(), ScopeError> {
        self.collect();
        let path = self
            .lock()
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, path)| path.clone());
        let Some(path) = path else { return Ok(()) };
        std::fs::write(path.join("cgroup.kill"), "1").map_err(|e| failed("stop", name, e))?;
        for _ in 0..1000 {
            self.collect();
            if !self.lock().iter().any(|(known, _)| known == name) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(ScopeError::Deadline {
            doing: "stop",
            name: name.to_owned(),
            seconds: 5,
        })
    }

    async fn scope_exists(&self, name: &str) -> Result<bool, ScopeError> {
        self.collect();
        Ok(self.lock().iter().any(|(known, _)| known == name))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, ScopeError> {
        self.collect();
        let scopes = self.lock();
        let names = scopes.iter().map(|(name, _)| name.clone());
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, pids: &[u32]) -> ScopeSpec {
        ScopeSpec {
            name: name.into(),
            slice: "a-b.slice".into(),
            description: String::new(),
            pids: pids.to_vec(),
        }
    }

    #[tokio::test]
    async fn a_scope_lives_as_long_as_its_processes() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        let scopes = FakeScopes::new(root);
        scopes.start_scope(&spec("x-1.scope", &[7])).await.unwrap();
        let path = root.join("a.slice/a-b.slice/x-1.scope");
        assert_eq!(
            std::fs::read_to_string(path.join("cgroup.procs")).unwrap(),
            "7"
        );
        assert!(scopes.scope_exists("x-1.scope").await.unwrap());
        assert_eq!(scopes.list("x-").await.unwrap(), ["x-1.scope"]);
        assert!(scopes.list("y-").await.unwrap().is_empty());
        assert!(scopes.start_scope(&spec("x-1.scope", &[8])).await.is_err());

        std::fs::write(path.join("cgroup.procs"), "").unwrap();
        assert!(!scopes.scope_exists("x-1.scope").await.unwrap());
        scopes.stop_scope("x-1.scope").await.unwrap();
    }
}
