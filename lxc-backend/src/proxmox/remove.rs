//! Removing a pod's container, and finding those of which something is left.

use std::io;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_sandbox::{SandboxError, SandboxId, SandboxSpec};

use super::backend::ProxmoxBackend;
use super::confs::{ConfError, Confs, Owner, include_of};
use super::ct::include_path;
use super::options::StartMode;
use super::pmxcfs::gone;
use super::vmid::{all_marked, marked};
use crate::container::{Directory, Engine, blocking};

/// For errors.
const DOING: &str = "remove the container";

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

    /// Gives back the sandbox's numbers, and removes everything that is there because of them, as far as it can; the first failure counts.
    pub(super) async fn remove_containers(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let (lxc_path, of) = (self.engine.options().lxc_path.clone(), id.clone());
        let all = blocking(id, DOING, move || marked(&lxc_path, &of)).await?;
        let mut outcome = Ok(());
        for vmid in all {
            outcome = outcome.and(self.remove_container(id, vmid).await);
        }
        outcome
    }

    /// Removes the configuration first and the marker last: by that the rest is found again.
    async fn remove_container(&self, id: &SandboxId, vmid: u32) -> Result<(), SandboxError> {
        let removal = Removal {
            engine: Arc::clone(&self.engine),
            confs: self.confs.clone(),
            run_dir: self.options.run_dir.clone(),
            id: id.clone(),
            vmid,
        };
        let start = self.step(removal.clone(), Removal::take_from_proxmox);
        let Some(was_started_by_proxmox) = start.await? else {
            return Ok(());
        };
        let by_api = matches!(self.options.start, StartMode::Api(_));
        // An administrator may have tried to start one that was nexcage's to start. Before the rest: what Proxmox does at the end of the
        // unit makes anew the files that LXC keeps, and systemd the one with what it says.
        if by_api || was_started_by_proxmox {
            self.units.forget(vmid).await;
        }
        self.step(removal, Removal::take_from_lxc).await?;
        self.vmids.give_back(vmid);
        Ok(())
    }

    /// Does a part of a removal where it blocks no worker.
    async fn step<T: Send + 'static>(
        &self,
        removal: Removal,
        part: impl FnOnce(&Removal) -> Result<T, RemoveError> + Send + 'static,
    ) -> Result<T, SandboxError> {
        let id = removal.id.clone();
        let done = tokio::task::spawn_blocking(move || part(&removal)).await;
        let done = done.map_err(|e| SandboxError::step(&id, DOING)(e))?;
        done.map_err(|error| match &error {
            RemoveError::Conf(ConfError::NoQuorum { .. } | ConfError::NotMounted { .. }) => {
                self.engine.unavailable_by(&error)
            }
            _ => SandboxError::step(&id, DOING)(error),
        })
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

/// A container of a sandbox that is being removed. All of it blocks.
#[derive(Clone, Debug)]
struct Removal {
    engine: Arc<Engine>,
    confs: Confs,
    /// Where Proxmox keeps what is said of containers that it starts.
    run_dir: Utf8PathBuf,
    id: SandboxId,
    vmid: u32,
}

impl Removal {
    /// Removes what makes it a container to Proxmox, and says whether Proxmox has ever started it, or tried to. `None` if it is somebody
    /// else's by now.
    fn take_from_proxmox(&self) -> Result<Option<bool>, RemoveError> {
        let (vmid, id) = (self.vmid, &self.id);
        match self.confs.remove(vmid, id)? {
            Owner::Foreign => {
                let path = self.confs.path(vmid);
                tracing::warn!(%path, sandbox = %id, "not removed: it is not of this pod, though its number was");
                self.directory().give_up()?;
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
        let any = messages(&self.run_dir, vmid).any(|path| path.exists());
        Ok(Some(any))
    }

    /// Removes what Proxmox and LXC keep of a container that has ended, its directory with the marker last.
    fn take_from_lxc(&self) -> Result<(), RemoveError> {
        for path in messages(&self.run_dir, self.vmid) {
            gone(std::fs::remove_file(path))?;
        }
        self.engine
            .remove_container(&self.vmid.to_string(), &self.directory())?;
        nexcage_failpoint::hit("pve.removed");
        Ok(())
    }

    fn directory(&self) -> Directory {
        self.engine.directory(&self.vmid.to_string(), &self.id)
    }
}

/// Files with what Proxmox keeps of a container that it starts.
fn messages(run_dir: &Utf8Path, vmid: u32) -> impl Iterator<Item = Utf8PathBuf> {
    MESSAGES
        .map(|kind| run_dir.join(format!("ct-{vmid}.{kind}")))
        .into_iter()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use nexcage_command::Program;
    use nexcage_sandbox::{CgroupHost, CgroupTree};

    use super::*;
    use crate::container::LxcOptions;
    use crate::proxmox::fake::FakePmxcfs;
    use crate::proxmox::options::ProxmoxOptions;
    use crate::proxmox::units::Units;

    /// systemd, which at the end of each unit writes to the file for what is said once more, and remembers the unit.
    #[derive(Debug)]
    struct FakeUnits {
        base: Utf8PathBuf,
        forgotten: Mutex<Vec<u32>>,
    }

    #[async_trait]
    impl Units for FakeUnits {
        async fn forget(&self, vmid: u32) {
            let marker = self.base.join(format!("lxc/{vmid}/nexcage-sandbox"));
            assert!(marker.is_symlink(), "{vmid} would not be found again");
            fs::write(self.base.join(format!("run/ct-{vmid}.stderr")), "ended").unwrap();
            self.forgotten.lock().unwrap().push(vmid);
        }
    }

    struct Setting {
        _temp: tempfile::TempDir,
        base: Utf8PathBuf,
        units: Arc<FakeUnits>,
        backend: ProxmoxBackend,
        id: SandboxId,
    }

    /// A node where nexcage starts containers itself.
    fn setting() -> Setting {
        let temp = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(temp.path()).unwrap().to_owned();
        for directory in ["lxc", "run"] {
            fs::create_dir(base.join(directory)).unwrap();
        }
        let pmxcfs = Arc::new(FakePmxcfs::new(base.join("pve"), &["pve1"]).unwrap());
        let program = Program::at("/bin/true").unwrap();
        let options = ProxmoxOptions {
            lxc: LxcOptions {
                lxc_path: base.join("lxc"),
                rootfs: base.join("rootfs"),
                id_base: 100_000,
                id_count: 65_536,
                apparmor: true,
                apparmor_profile: None,
                holder: program.clone(),
            },
            pve_dir: base.join("pve"),
            node: "pve1".into(),
            vmids: 900_000..=900_009,
            lock_dir: base.join("locks"),
            run_dir: base.join("run"),
            start: StartMode::Direct,
            dpkg_query: program.clone(),
            hook: program,
        };
        let cgroups = CgroupTree::new(CgroupHost::None, "nexcage-", None);
        let units = Arc::new(FakeUnits {
            base: base.clone(),
            forgotten: Mutex::default(),
        });
        let mut backend = ProxmoxBackend::with_pmxcfs(options, Arc::new(cgroups), pmxcfs);
        backend.units = Arc::clone(&units) as _;
        Setting {
            _temp: temp,
            base,
            units,
            backend,
            id: SandboxId("0123".into()),
        }
    }

    impl Setting {
        /// Marks the number's directory as the sandbox's.
        fn mark(&self, vmid: u32) {
            let directory = self.base.join(format!("lxc/{vmid}"));
            fs::create_dir(&directory).unwrap();
            symlink(&self.id.0, directory.join("nexcage-sandbox")).unwrap();
        }

        /// As after a start by Proxmox.
        fn was_started_by_proxmox(&self, vmid: u32) {
            fs::write(self.base.join(format!("run/ct-{vmid}.warnings")), "").unwrap();
        }

        fn left(&self, directory: &str) -> Vec<String> {
            let entries = self.base.join(directory).read_dir_utf8().unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_owned()).collect();
            names.sort();
            names
        }
    }

    #[tokio::test]
    async fn one_that_cannot_be_removed_keeps_no_unit_of_others() {
        let setting = setting();
        for vmid in [900_000, 900_001, 900_002] {
            setting.mark(vmid);
        }
        setting.was_started_by_proxmox(900_000);
        setting.was_started_by_proxmox(900_002);
        // Nothing that can be read, whoever reads.
        let conf = setting.backend.confs.path(900_000);
        fs::create_dir(&conf).unwrap();

        let removed = setting.backend.remove_containers(&setting.id).await;
        assert!(
            matches!(removed, Err(SandboxError::Step { .. })),
            "{removed:?}"
        );
        assert_eq!(*setting.units.forgotten.lock().unwrap(), [900_002]);
        assert_eq!(setting.left("lxc"), ["900000"]);
        assert_eq!(setting.left("run"), ["ct-900000.warnings"]);

        fs::remove_dir(&conf).unwrap();
        setting
            .backend
            .remove_containers(&setting.id)
            .await
            .unwrap();
        assert_eq!(*setting.units.forgotten.lock().unwrap(), [900_002, 900_000]);
        assert_eq!(setting.left("lxc"), [""; 0]);
        assert_eq!(setting.left("run"), [""; 0]);
    }

    #[tokio::test]
    async fn what_proxmox_says_of_other_containers_stays() {
        let setting = setting();
        setting.mark(900_000);
        for name in ["ct-900000.stderr", "ct-9000001.stderr"] {
            fs::write(setting.base.join("run").join(name), "").unwrap();
        }
        setting
            .backend
            .remove_containers(&setting.id)
            .await
            .unwrap();
        assert_eq!(setting.left("run"), ["ct-9000001.stderr"]);
    }
}
