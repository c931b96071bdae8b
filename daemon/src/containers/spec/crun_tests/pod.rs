//! Namespaces as of a sandbox, and containers in them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use camino::{Utf8Path, Utf8PathBuf};

use super::super::tests::{Fixture, node};
use super::super::*;
use crate::containers::config::*;
use crate::containers::users;

/// Whether crun can run here at all; says why not.
pub(super) fn possible() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: starting containers needs root");
        return false;
    }
    true
}

#[allow(clippy::disallowed_methods, reason = "a test")]
fn command(program: &str) -> Command {
    Command::new(program)
}

/// crun, shown no controllers of cgroup v2 beside those of v1: it refuses hosts that have both.
fn crun() -> Command {
    let controllers = "/sys/fs/cgroup/unified/cgroup.controllers";
    if !std::fs::exists(controllers).unwrap() {
        return command("crun");
    }
    let script = "mount --make-private /sys/fs/cgroup/unified \
        && mount --bind /dev/null \"$0\" && exec crun \"$@\"";
    let mut crun = command("unshare");
    crun.args([
        "--mount",
        "--propagation=unchanged",
        "--",
        "sh",
        "-c",
        script,
        controllers,
    ]);
    crun
}

/// A tmpfs, unmounted at the end of the test, however it ends.
pub(super) struct Tmpfs(Utf8PathBuf);

impl Tmpfs {
    pub(super) fn mount(path: Utf8PathBuf) -> Self {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", path.as_str(), "tmpfs", flags, None).unwrap();
        Self(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Detached with whatever a container has mounted on it.
        let _ = rustix::mount::unmount(self.0.as_str(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// A process that holds network, IPC, UTS and PID namespaces, and a directory with a root filesystem.
pub(super) struct Pod {
    dir: tempfile::TempDir,
    holder: Child,
    init: u32,
}

impl Pod {
    pub(super) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("nexcage-spec-")
            .tempdir()
            .unwrap();
        let mut holder = command("unshare");
        holder.args(["--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]);
        // The first line says that hostname and interface are set.
        let script = "hostname pod-1; ip link set lo up; echo ready; exec sleep 600";
        holder
            .args(["sh", "-c", script])
            .stdout(Stdio::piped())
            .stdin(Stdio::null());
        let mut holder = holder.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        let pid = holder.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let init = children.unwrap().trim().parse().unwrap();
        let pod = Self { dir, holder, init };
        pod.make_files();
        pod
    }

    pub(super) fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.dir.path()).unwrap().join(name)
    }

    /// busybox, two users, and what the sandbox gives.
    fn make_files(&self) {
        for dir in [
            "rootfs/bin",
            "rootfs/etc",
            "rootfs/tmp",
            "shm",
            "bundles",
            "run",
        ] {
            std::fs::create_dir_all(self.path(dir)).unwrap();
        }
        std::fs::copy("/bin/busybox", self.path("rootfs/bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "id", "hostname", "grep", "touch", "ls", "mount", "chmod", "ps", "env",
            "brctl", "true", "stat", "test", "mknod", "pwd", "ping",
        ] {
            // Hard links, as in the official image: hiding one applet must not hide them all.
            let bin = self.path("rootfs/bin");
            std::fs::hard_link(bin.join("busybox"), bin.join(applet)).unwrap();
        }
        let file = |name: &str, text: &str| std::fs::write(self.path(name), text).unwrap();
        file(
            "rootfs/etc/passwd",
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
        );
        file(
            "rootfs/etc/group",
            "root:x:0:\nuser:x:1000:\nextra:x:50000:user\n",
        );
        file("resolv.conf", "nameserver 192.0.2.1\n");
        file("hostname", "pod-1\n");
        file("hosts", "127.0.0.1 localhost\n");
    }

    pub(super) fn namespace(&self, name: &str) -> Utf8PathBuf {
        format!("/proc/{}/ns/{name}", self.init).into()
    }

    /// A container that runs a shell script.
    pub(super) fn container(&self, script: &str) -> Fixture {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .unwrap();
        let mask = u64::from_str_radix(line.trim(), 16).unwrap();
        let namespaces = Namespaces {
            pid: PidMode::Container,
            ..Namespaces::default()
        };
        Fixture {
            config: ContainerSpec {
                command: vec!["/bin/sh".into(), "-c".into(), script.into()],
                security: SecurityContext {
                    namespaces,
                    ..SecurityContext::default()
                },
                ..ContainerSpec::default()
            },
            image: None,
            user: users::resolve(&self.path("rootfs"), "", &SecurityContext::default()).unwrap(),
            sandbox: SandboxFacts {
                hostname: "pod-1".into(),
                privileged: true,
                network: Some(self.namespace("net")),
                ipc: Some(self.namespace("ipc")),
                user: None,
                uts: Some(self.namespace("uts")),
                pid: Some(self.namespace("pid")),
                shm: self.path("shm"),
                resolv_conf: Some(self.path("resolv.conf")),
                hostname_file: Some(self.path("hostname")),
                hosts: Some(self.path("hosts")),
            },
            node: NodeFacts {
                available_capabilities: capabilities_from_mask(mask),
                seccomp_target: crate::containers::seccomp::Target::this_machine(),
                ..node()
            },
            rootfs: self.path("rootfs"),
            cgroup: None,
            mount_sources: Vec::new(),
            image_volumes: Vec::new(),
            devices: Vec::new(),
            target_pid: None,
            localhost_seccomp: None,
        }
    }

    /// Runs the container to its end; its output, and whether it ended well.
    pub(super) fn run(&self, fixture: &Fixture) -> (bool, String) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "nexcage-spec-{}-{}",
            self.init,
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let bundle = self.path("bundles").join(&id);
        std::fs::create_dir(&bundle).unwrap();
        let json = serde_json::to_vec_pretty(&fixture.build().unwrap()).unwrap();
        std::fs::write(bundle.join("config.json"), json).unwrap();
        let out = crun()
            .args([
                "--root",
                self.path("run").as_str(),
                "--cgroup-manager=disabled",
                "run",
            ])
            .args(["--bundle", bundle.as_str(), &id])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        (
            out.status.success(),
            text + &String::from_utf8_lossy(&out.stderr),
        )
    }

    /// Output of a container that must end well.
    pub(super) fn output(&self, fixture: &Fixture) -> String {
        let (ok, text) = self.run(fixture);
        assert!(ok, "{text}");
        text.trim_end().to_owned()
    }

    /// Output of a script in a container that is changed beforehand.
    pub(super) fn shell(&self, script: &str, change: impl FnOnce(&mut Fixture)) -> String {
        let mut fixture = self.container(script);
        change(&mut fixture);
        self.output(&fixture)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
