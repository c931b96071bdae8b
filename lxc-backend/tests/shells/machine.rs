//! Real sandboxes on this machine, and proof that nothing of them stays.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::Program;
use nexcage_lxc::{FakePmxcfs, LxcBackend, LxcOptions, ProxmoxBackend, ProxmoxOptions, StartMode};
use nexcage_oci_runtime::{CgroupManager, OciRuntime, OciRuntimeOptions};
use nexcage_sandbox::{
    CgroupHost, CgroupTree, HostBackend, HostOptions, NamespaceMode, PodResources, SandboxBackend,
    SandboxId, SandboxSpec, ensure_rootfs,
};
use nexcage_systemd::{FakeScopes, ScopeManager};

use crate::pve::{FakePve, script_at};

/// Which shell a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lxc,
    Host,
    /// Proxmox containers that nexcage starts.
    Proxmox,
    /// Proxmox containers that Proxmox starts.
    ProxmoxApi,
}

/// A corner of this machine with a name prefix of its own.
pub(crate) struct Machine {
    pub(crate) prefix: String,
    pub(crate) base: Utf8PathBuf,
    pub(crate) cgroups: Arc<CgroupTree>,
    pub(crate) backend: Arc<dyn SandboxBackend>,
    /// The cluster and Proxmox's part of this node, if it is one.
    pve: Option<(Arc<FakePmxcfs>, Arc<FakePve>)>,
    cgroup_parent: String,
    counter: std::cell::Cell<u32>,
    _temp: Option<tempfile::TempDir>,
}

/// What a test needs to run; says why it does not.
pub(crate) fn can_run() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    eprintln!("skipped: sandboxes can be started by root only");
    false
}

impl Machine {
    /// `name` is unique among all tests.
    pub(crate) async fn new(name: &str, kind: Kind, with_scopes: bool) -> Self {
        let temp = tempfile::Builder::new().prefix("nxtsb-").tempdir().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let base = Utf8PathBuf::try_from(temp.path().to_owned()).unwrap();
        Self::at(base, Some(temp), name, kind, with_scopes).await
    }

    /// One whose files are in a directory that somebody else removes.
    pub(crate) async fn at(
        base: Utf8PathBuf,
        temp: Option<tempfile::TempDir>,
        name: &str,
        kind: Kind,
        with_scopes: bool,
    ) -> Self {
        let prefix = format!("nxtsb-{name}-");
        let host = CgroupHost::detect().unwrap();
        let scopes = with_scopes.then(|| {
            let root = host.root().unwrap();
            Arc::new(FakeScopes::new(root)) as Arc<dyn ScopeManager>
        });
        let cgroups = Arc::new(CgroupTree::new(host, &prefix, scopes));
        let rootfs = base.join("rootfs");
        let catatonit = Program::find("catatonit", "catatonit").unwrap();
        ensure_rootfs(&rootfs, &catatonit).await.unwrap();
        let mut pve = None;
        let backend: Arc<dyn SandboxBackend> = match kind {
            Kind::Lxc => Arc::new(LxcBackend::new(lxc(&base, rootfs), Arc::clone(&cgroups))),
            Kind::Host => host_backend(&base, rootfs, &cgroups),
            Kind::Proxmox | Kind::ProxmoxApi => {
                let cluster = Arc::new(cluster(&base));
                let fake = Arc::new(FakePve::new(&base, &rootfs));
                pve = Some((Arc::clone(&cluster), Arc::clone(&fake)));
                let options = proxmox(&base, rootfs, kind, fake);
                let cgroups = Arc::clone(&cgroups);
                Arc::new(ProxmoxBackend::with_pmxcfs(options, cgroups, cluster))
            }
        };
        backend.check().await.unwrap();
        let stem = format!("nxtsb{}", name.replace('-', ""));
        Self {
            cgroup_parent: if with_scopes {
                format!("{stem}.slice")
            } else {
                format!("/{stem}")
            },
            prefix,
            base,
            cgroups,
            backend,
            pve,
            counter: std::cell::Cell::default(),
            _temp: temp,
        }
    }

    /// An ordinary pod with an id of its own.
    pub(crate) fn spec(&self) -> SandboxSpec {
        let number = self.counter.get();
        self.counter.set(number + 1);
        let id = SandboxId(format!("{:08x}{number:056x}", std::process::id()));
        SandboxSpec {
            run_dir: self.base.join("run").join(&id.0),
            id,
            name: "web".into(),
            namespace: "default".into(),
            uid: "6f6ccf3e-4a1e-4b7c-9a1f-1d8b1c1f1a11".into(),
            hostname: "web-0".into(),
            cgroup_parent: self.cgroup_parent.clone(),
            network: NamespaceMode::Pod,
            netns: None,
            ipc: NamespaceMode::Pod,
            pid: NamespaceMode::Pod,
            user_namespace: None,
            privileged: false,
            sysctls: BTreeMap::new(),
            resources: PodResources::default(),
            annotations: BTreeMap::new(),
        }
    }

    /// The cluster that this node is in.
    pub(crate) fn cluster(&self) -> &FakePmxcfs {
        &self.pve.as_ref().unwrap().0
    }

    /// Proxmox's part of this node.
    pub(crate) fn pve(&self) -> &FakePve {
        &self.pve.as_ref().unwrap().1
    }

    /// Proxmox's configuration of a container.
    pub(crate) fn conf(&self, vmid: &str) -> Utf8PathBuf {
        self.base.join(format!("pve/nodes/pve1/lxc/{vmid}.conf"))
    }

    pub(crate) fn lxc_path(&self) -> Utf8PathBuf {
        self.base.join("lxc")
    }

    /// Panics if anything named after this corner is left: processes, cgroups, mounts, files.
    pub(crate) fn assert_clean(&self) {
        let mut left = Vec::new();
        // The kernel takes a moment to let go of a namespace's mounts.
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            left.clear();
            processes(&[&self.prefix, self.base.as_str()], &mut left);
            directories("/sys/fs/cgroup".into(), &self.prefix, &mut left);
            directories("/run/lxc".into(), &self.prefix, &mut left);
            directories(
                &Utf8PathBuf::from(format!("/run/lxc/lock{}", self.lxc_path())),
                "",
                &mut left,
            );
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let mounts = mounts
                .lines()
                .filter(|line| line.contains(self.base.as_str()));
            left.extend(mounts.map(|line| format!("mount {line}")));
            let confs = [
                "pve/nodes/pve1/lxc",
                "pve/nodes/pve2/lxc",
                "locks",
                "run-pve",
            ];
            for below in ["lxc", "crun", "run"].into_iter().chain(confs) {
                let entries = fs::read_dir(self.base.join(below)).into_iter().flatten();
                let names = entries.map(|e| e.unwrap().path());
                for path in names {
                    // A run directory is the caller's; what is in it is ours.
                    let ours = below != "run" || path.join("backend").exists();
                    left.extend(ours.then(|| format!("file {}", path.display())));
                }
            }
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind: {left:#?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // LXC keeps a directory of locks for each lxc_path.
        let locks = format!("/run/lxc/lock{}", self.base);
        remove_empty(locks.as_ref());
        // The parent that the specs name; a failed test may have left more below it.
        let Ok(trees) = fs::read_dir("/sys/fs/cgroup") else {
            return;
        };
        let name = self.cgroup_parent.trim_start_matches('/');
        for tree in trees.flatten() {
            let parent = tree.path().join(name);
            let _ = fs::write(parent.join("cgroup.kill"), "1");
            remove_empty(&parent);
        }
    }
}

fn remove_empty(directory: &std::path::Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// `examples/helper`, which `cargo test` builds next to the tests.
fn helper() -> Program {
    let test = Utf8PathBuf::try_from(std::env::current_exe().unwrap()).unwrap();
    let target = test.parent().unwrap().parent().unwrap();
    Program::at(target.join("examples/helper")).unwrap()
}

fn lxc(base: &Utf8Path, rootfs: Utf8PathBuf) -> LxcOptions {
    LxcOptions {
        lxc_path: base.join("lxc"),
        rootfs,
        id_base: 100_000,
        id_count: 65_536,
        apparmor: true,
        apparmor_profile: None,
        holder: helper(),
    }
}

/// A cluster of two nodes, made by whoever comes first.
fn cluster(base: &Utf8Path) -> FakePmxcfs {
    let pve = base.join("pve");
    if pve.exists() {
        FakePmxcfs::existing(pve)
    } else {
        FakePmxcfs::new(pve, &["pve1", "pve2"]).unwrap()
    }
}

/// The options of a node named `pve1`.
pub(crate) fn proxmox(
    base: &Utf8Path,
    rootfs: Utf8PathBuf,
    kind: Kind,
    pve: Arc<FakePve>,
) -> ProxmoxOptions {
    let dpkg_query = base.join("dpkg-query");
    script_at(&dpkg_query, "#!/bin/sh\necho installed 6.1.10\n");
    ProxmoxOptions {
        lxc: lxc(base, rootfs),
        pve_dir: base.join("pve"),
        node: "pve1".to_owned(),
        vmids: 900_000..=900_031,
        lock_dir: base.join("locks"),
        run_dir: base.join("run-pve"),
        start: match kind {
            Kind::ProxmoxApi => StartMode::Api(pve),
            _ => StartMode::Direct,
        },
        dpkg_query: Program::at(dpkg_query).unwrap(),
        hook: helper(),
    }
}

fn host_backend(
    base: &Utf8Path,
    rootfs: Utf8PathBuf,
    cgroups: &Arc<CgroupTree>,
) -> Arc<dyn SandboxBackend> {
    let runtime = OciRuntime::new(OciRuntimeOptions {
        crun: Program::find("crun", "crun").unwrap(),
        conmon: Program::find("conmon", "conmon").unwrap(),
        helper: helper(),
        root: base.join("crun"),
        exit_dir: base.join("exits"),
        monitor_dir: base.join("m"),
        cgroup_manager: CgroupManager::Disabled,
        deadline: Duration::from_secs(30),
    });
    Arc::new(HostBackend::new(
        HostOptions {
            rootfs,
            holder: helper(),
        },
        Arc::clone(cgroups),
        runtime,
    ))
}

/// Processes whose command line or cgroup has one of the marks; zombies that nobody reaps do not count.
fn processes(marks: &[&str], left: &mut Vec<String>) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name == std::process::id().to_string() || !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let read = |file| fs::read(entry.path().join(file)).unwrap_or_default();
        let (stat, line, cgroup) = (read("stat"), read("cmdline"), read("cgroup"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', " ");
        if text(&stat).contains(") Z ") {
            continue;
        }
        let seen = format!("{} {}", text(&line), text(&cgroup));
        if marks.iter().any(|mark| seen.contains(mark)) {
            left.push(format!("process {name} {}", text(&line)));
        }
    }
}

fn directories(below: &Utf8Path, prefix: &str, left: &mut Vec<String>) {
    for entry in below.read_dir_utf8().into_iter().flatten().flatten() {
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        // Lock files of LXC start with a dot.
        if entry
            .file_name()
            .trim_start_matches('.')
            .starts_with(prefix)
        {
            left.push(entry.path().to_string());
        } else if is_dir {
            directories(entry.path(), prefix, left);
        }
    }
}

/// Runs a program of the test's own.
#[allow(
    clippy::disallowed_methods,
    reason = "tests look at the machine themselves"
)]
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A process of the pod's as an app container's would be: in a cgroup of its own below the container's.
#[allow(
    clippy::disallowed_methods,
    reason = "tests look at the machine themselves"
)]
pub(crate) fn app_container(container: &Utf8Path) -> std::process::Child {
    let child = Command::new("sleep").arg("600").spawn().unwrap();
    let cgroup = container.join("app");
    fs::create_dir(&cgroup).unwrap();
    fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
    child
}

/// What a namespace link of a process points to.
pub(crate) fn namespace(pid: u32, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.into_os_string().into_string().unwrap()
}

/// Whether a process has ended, or does so within a second.
pub(crate) fn ends(child: &mut std::process::Child) -> bool {
    for _ in 0..200 {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    false
}
