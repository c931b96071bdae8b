//! A Proxmox that starts containers as the real one does, but for the Perl: it makes LXC's configuration from its own, mounts the root
//! filesystem in a hook, and starts LXC outside of any pod's cgroup.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use nexcage_lxc::{ClusterStatus, CtStatus, CtSummary, Permissions, Pve, PveError};

/// The node `pve1`, whose cluster file system and containers are below `base`.
#[derive(Debug)]
pub(crate) struct FakePve {
    base: Utf8PathBuf,
    rootfs: Utf8PathBuf,
    /// Containers that were started.
    pub(crate) started: AtomicU32,
    /// What an administrator does to each that is started.
    pub(crate) deed: Mutex<Option<Deed>>,
}

/// What an administrator does to a container that is being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Removes its configuration, just before.
    Destroy,
    /// Kills it, just after.
    Stop,
}

impl FakePve {
    pub(crate) fn new(base: impl Into<Utf8PathBuf>, rootfs: impl Into<Utf8PathBuf>) -> Self {
        Self {
            base: base.into(),
            rootfs: rootfs.into(),
            started: AtomicU32::default(),
            deed: Mutex::default(),
        }
    }

    fn conf(&self, vmid: u32) -> Utf8PathBuf {
        self.base.join(format!("pve/nodes/pve1/lxc/{vmid}.conf"))
    }

    /// What Proxmox does whenever it starts a container or its configuration is edited (`update_lxc_config`).
    pub(crate) fn update_lxc_config(&self, vmid: u32) -> Utf8PathBuf {
        let text = fs::read_to_string(self.conf(vmid)).unwrap();
        let directory = self.base.join(format!("lxc/{vmid}"));
        let rootfs = directory.join("rootfs");
        let key = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.strip_prefix(": "))
                .unwrap_or_else(|| panic!("no {key} in {text}"))
        };
        assert_eq!(key("ostype"), "unmanaged");
        assert_eq!(key("unprivileged"), "1");
        let mount = key("rootfs").split_once(',').unwrap();
        assert_eq!(mount, (self.rootfs.as_str(), "ro=1,idmap=passthrough"));

        let mut raw = String::new();
        let mut set = |key: &str, value: &str| writeln!(raw, "{key} = {value}").unwrap();
        set("lxc.cgroup.relative", "0");
        set("lxc.cgroup.dir.monitor", &format!("lxc.monitor/{vmid}"));
        set("lxc.cgroup.dir.container", &format!("lxc/{vmid}"));
        set("lxc.cgroup.dir.container.inner", "ns");
        set("lxc.arch", key("arch"));
        set("lxc.include", "/usr/share/lxc/config/common.conf");
        set("lxc.include", "/usr/share/lxc/config/userns.conf");
        // 01-pve.conf in common.conf.d.
        let hook = self.base.join(format!("prestart-{vmid}"));
        let script = format!(
            "#!/bin/sh -e\nmount --bind {from} {rootfs}\nmount -o remount,bind,ro {rootfs}\n",
            from = self.rootfs
        );
        script_at(&hook, &script);
        set("lxc.hook.pre-start", hook.as_str());
        // As Proxmox's own does at times: LXC then runs no other of this kind.
        set("lxc.hook.post-stop", "/bin/false");
        set("lxc.mount.auto", "sys:mixed");
        set("lxc.monitor.unshare", "1");
        if !text.contains("lxc.idmap") {
            set("lxc.idmap", "u 0 100000 65536");
            set("lxc.idmap", "g 0 100000 65536");
        }
        set("lxc.tty.max", "2");
        set("lxc.environment", "TERM=linux");
        set("lxc.uts.name", key("hostname"));
        // Where there is no such controller LXC would start nothing with these.
        let bytes = key("memory").parse::<u64>().unwrap() << 20;
        set("lxc.cgroup2.memory.max", &bytes.to_string());
        set(
            "lxc.cgroup2.memory.high",
            &(bytes / 1024 * 1016).to_string(),
        );
        set("lxc.cgroup2.memory.swap.max", key("swap"));
        set("lxc.cgroup2.cpu.max", "100000 100000");
        set("lxc.cgroup2.cpu.weight", "100");
        set("lxc.rootfs.path", rootfs.as_str());
        let mut pinned = true;
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            if key.starts_with("lxc.") {
                set(key, value.trim());
                pinned &= key != "lxc.cgroup2.cpuset.cpus";
            }
        }
        assert!(!pinned);
        fs::create_dir_all(&rootfs).unwrap();
        let config = directory.join("config");
        fs::write(&config, raw).unwrap();
        config
    }

    #[allow(clippy::disallowed_methods, reason = "it is another program's part")]
    fn lxc_stop(&self, vmid: u32) {
        let path = self.base.join("lxc");
        let mut stop = Command::new("lxc-stop");
        stop.args(["--kill", "-n", &vmid.to_string(), "-P", path.as_str()]);
        assert!(stop.status().unwrap().success());
    }

    #[allow(clippy::disallowed_methods, reason = "it is another program's part")]
    fn lxc_start(&self, vmid: u32) -> Result<(), PveError> {
        let path = self.base.join("lxc");
        // As Proxmox does, it leaves both behind.
        let messages = self.base.join("run-pve");
        fs::create_dir_all(&messages).unwrap();
        fs::write(messages.join(format!("ct-{vmid}.warnings")), "").unwrap();
        let stderr = messages.join(format!("ct-{vmid}.stderr"));
        let mut lxc = Command::new("lxc-start")
            .args(["-F", "-n", &vmid.to_string(), "-P", path.as_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        loop {
            if let Some(status) = lxc.try_wait().unwrap() {
                let said = fs::read_to_string(&stderr).unwrap();
                return Err(PveError::Task {
                    upid: format!("UPID:pve1:0:0:0:vzstart:{vmid}:root@pam:"),
                    exit_status: format!("startup for container '{vmid}' failed ({status})"),
                    log: said.lines().map(str::to_owned).collect(),
                });
            }
            let state = Command::new("lxc-info")
                .args(["-n", &vmid.to_string(), "-P", path.as_str(), "-sH"])
                .output()
                .unwrap();
            if state.stdout.starts_with(b"RUNNING") {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        // As systemd would.
        std::thread::spawn(move || lxc.wait());
        Ok(())
    }
}

/// Writes a script that can be executed.
pub(crate) fn script_at(path: &camino::Utf8Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    // Not in place: another thread may be executing it.
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

#[async_trait]
impl Pve for FakePve {
    async fn version(&self) -> Result<String, PveError> {
        Ok("9.2.11".to_owned())
    }

    async fn cluster(&self) -> Result<ClusterStatus, PveError> {
        Ok(ClusterStatus {
            name: None,
            quorate: true,
            nodes: BTreeMap::from([("pve1".to_owned(), true)]),
        })
    }

    async fn permissions(&self) -> Result<Permissions, PveError> {
        let held = |privilege: &str| BTreeMap::from([(privilege.to_owned(), true)]);
        Ok(Permissions(BTreeMap::from([
            ("/vms".to_owned(), held("VM.PowerMgmt")),
            ("/vms/800000".to_owned(), held("VM.Audit")),
        ])))
    }

    async fn containers(&self) -> Result<Vec<CtSummary>, PveError> {
        Ok(Vec::new())
    }

    async fn status(&self, vmid: u32) -> Result<CtStatus, PveError> {
        Err(PveError::NotFound {
            doing: format!("look at container {vmid}"),
            message: "not asked for here".to_owned(),
        })
    }

    async fn start(&self, vmid: u32) -> Result<(), PveError> {
        let deed = *self.deed.lock().unwrap();
        if deed == Some(Deed::Destroy) {
            fs::remove_file(self.conf(vmid)).unwrap();
        }
        let text = fs::read_to_string(self.conf(vmid)).map_err(|e| PveError::NotFound {
            doing: format!("start container {vmid}"),
            message: e.to_string(),
        })?;
        if text.lines().any(|line| line.starts_with("lock: ")) {
            return Err(PveError::Locked {
                doing: format!("start container {vmid}"),
                message: "CT is locked".to_owned(),
            });
        }
        self.update_lxc_config(vmid);
        self.started.fetch_add(1, Ordering::SeqCst);
        let fake = Self::new(&self.base, &self.rootfs);
        let started = tokio::task::spawn_blocking(move || {
            fake.lxc_start(vmid)?;
            if deed == Some(Deed::Stop) {
                fake.lxc_stop(vmid);
            }
            Ok(())
        });
        started.await.unwrap()
    }

    async fn stop(&self, vmid: u32) -> Result<(), PveError> {
        self.status(vmid).await.map(|_| ())
    }

    async fn shutdown(&self, vmid: u32, _timeout: Duration) -> Result<(), PveError> {
        self.status(vmid).await.map(|_| ())
    }
}
