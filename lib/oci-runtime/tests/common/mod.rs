//! A host for real containers: a runtime with directories and cgroups of its own, and a root filesystem of busybox.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::Program;
use nexcage_oci_runtime::{
    CgroupManager, CreateContainer, Created, ExecSync, ExitRecord, OciRuntime, OciRuntimeOptions,
};
use oci_spec::runtime::Process;
use serde_json::{Value, json};

/// Whether containers can be made; says so if not.
pub(crate) fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root to make containers");
    }
    root
}

/// Removed, with every container in it, when dropped.
pub(crate) struct Host {
    pub(crate) runtime: OciRuntime,
    pub(crate) options: OciRuntimeOptions,
    pub(crate) dir: Utf8PathBuf,
    /// Parent of all cgroups.
    pub(crate) cgroup: Utf8PathBuf,
}

/// The installed one, or that in the directory `NXOCI_PROGRAMS`, to test other versions.
fn program(name: &str) -> Program {
    match std::env::var("NXOCI_PROGRAMS") {
        Ok(directory) => Program::at(Utf8Path::new(&directory).join(name)).unwrap(),
        Err(_) => Program::find(name, name).unwrap(),
    }
}

/// `examples/hybrid`, which `cargo test` builds next to the tests.
fn helper() -> Program {
    let test = Utf8PathBuf::try_from(std::env::current_exe().unwrap()).unwrap();
    let target = test.parent().unwrap().parent().unwrap();
    Program::at(target.join("examples/hybrid")).unwrap()
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Host {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("nxoci-{}-{number}", std::process::id());
        Self::named(&name)
    }

    /// As another process may have left it.
    pub(crate) fn named(name: &str) -> Self {
        let dir = Utf8PathBuf::from("/run").join(name);
        let (mount, manager) = match Utf8Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            true => ("/sys/fs/cgroup", CgroupManager::Cgroupfs),
            false => ("/sys/fs/cgroup/unified", CgroupManager::Disabled),
        };
        let cgroup = Utf8Path::new(mount).join(name);
        for directory in [&dir, &cgroup, &cgroup.join("monitor"), &cgroup.join("ct")] {
            fs::create_dir_all(directory).unwrap();
        }
        let options = OciRuntimeOptions {
            crun: program("crun"),
            conmon: program("conmon"),
            helper: helper(),
            root: dir.join("crun"),
            exit_dir: dir.join("exits"),
            monitor_dir: dir.join("m"),
            cgroup_manager: manager,
            deadline: Duration::from_secs(20),
        };
        Self {
            runtime: OciRuntime::new(options.clone()),
            options,
            dir,
            cgroup,
        }
    }

    /// A bundle that runs a shell script.
    pub(crate) fn script(&self, id: &str, script: &str) -> CreateContainer {
        self.bundle(id, &["/bin/busybox", "sh", "-c", script], |_| {})
    }

    /// A bundle, with a last change to its `config.json`.
    pub(crate) fn bundle(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> CreateContainer {
        let bundle = self.dir.join("bundles").join(id);
        let bin = bundle.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        for directory in ["proc", "dev", "tmp"] {
            fs::create_dir_all(bundle.join("rootfs").join(directory)).unwrap();
        }
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for tool in [
            "sh", "sleep", "cat", "echo", "kill", "setsid", "true", "ls", "head",
        ] {
            let _ = symlink("busybox", bin.join(tool));
        }
        fs::write(bin.join("broken"), b"\x7fELF but not really").unwrap();
        fs::set_permissions(bin.join("broken"), fs::Permissions::from_mode(0o755)).unwrap();
        let container_cgroup = self.cgroup.join("ct").join(id);
        let mount = match self.options.cgroup_manager {
            CgroupManager::Cgroupfs => "/sys/fs/cgroup",
            CgroupManager::Disabled => "/sys/fs/cgroup/unified",
        };
        let cgroups_path = container_cgroup.as_str().strip_prefix(mount).unwrap();
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": process(args),
            "root": { "path": "rootfs" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            ],
            "linux": {
                "cgroupsPath": cgroups_path,
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }],
            },
        });
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let logs = self.dir.join("logs");
        fs::create_dir_all(&logs).unwrap();
        CreateContainer {
            id: id.to_owned(),
            bundle,
            log_path: logs.join(format!("{id}.log")),
            terminal: false,
            stdin: false,
            stdin_once: false,
            monitor_cgroup: Some(self.cgroup.join("monitor")),
            container_cgroup,
        }
    }

    /// Creates and starts.
    pub(crate) async fn run(&self, container: &CreateContainer) -> Created {
        let created = self.runtime.create(container).await.unwrap();
        self.runtime.start(&container.id).await.unwrap();
        created
    }

    /// Runs a shell script in a running container.
    pub(crate) fn exec(&self, script: &str, timeout: Option<Duration>) -> ExecSync {
        exec(&["/bin/busybox", "sh", "-c", script], timeout)
    }

    pub(crate) async fn exit(&self, id: &str) -> ExitRecord {
        let record = || self.runtime.exit_record(id).unwrap();
        eventually("an exit record", || record().is_some()).await;
        record().unwrap()
    }

    /// Ids, programs and arguments of processes below the host's cgroups.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut groups = vec![self.cgroup.clone()];
        while let Some(group) = groups.pop() {
            let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(list.lines().filter_map(|pid| pid.parse::<u32>().ok()));
            for entry in group.read_dir_utf8().into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    groups.push(entry.into_path());
                }
            }
        }
        found
    }

    /// Nothing of any container is left but bundles and logs.
    pub(crate) async fn assert_clean(&self) {
        assert_eq!(self.runtime.list().await.unwrap(), Vec::<String>::new());
        assert_eq!(self.processes(), Vec::<u32>::new());
        for directory in ["exits", "m/s"] {
            let left: Vec<_> = fs::read_dir(self.dir.join(directory))
                .into_iter()
                .flatten()
                .collect();
            assert!(left.is_empty(), "{directory}: {left:?}");
        }
        let below = |parent: &str| {
            let entries = self.cgroup.join(parent).read_dir_utf8().unwrap();
            entries
                .flatten()
                .filter(|entry| entry.file_type().unwrap().is_dir())
                .map(|entry| entry.path().to_owned())
                .collect::<Vec<_>>()
        };
        let groups = [below("ct"), below("monitor")].concat();
        assert!(groups.is_empty(), "{groups:?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        for _ in 0..500 {
            let mut groups = vec![self.cgroup.clone()];
            let mut next = 0;
            while let Some(group) = groups.get(next).cloned() {
                next += 1;
                for entry in group.read_dir_utf8().into_iter().flatten().flatten() {
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        groups.push(entry.into_path());
                    }
                }
            }
            for group in groups.iter().rev() {
                let _ = fs::remove_dir(group);
            }
            if !self.cgroup.exists() {
                break;
            }
            #[allow(clippy::disallowed_methods, reason = "drop cannot await")]
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// `process` of a bundle or an exec.
pub(crate) fn process(args: &[&str]) -> Value {
    let capabilities = json!(["CAP_KILL", "CAP_SYS_PTRACE"]);
    json!({
        "terminal": false,
        "user": { "uid": 0, "gid": 0 },
        "args": args,
        "env": ["PATH=/bin", "HOME=/"],
        "cwd": "/",
        "capabilities": {
            "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
        },
    })
}

pub(crate) fn exec(args: &[&str], timeout: Option<Duration>) -> ExecSync {
    let process: Process = serde_json::from_value(process(args)).unwrap();
    ExecSync {
        process,
        timeout,
        output_limit: 16 << 20,
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process runs (a zombie does not).
pub(crate) fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit(')').next().unwrap().trim_start();
        !state.starts_with('Z')
    })
}
