//! The configurations, given to the real crun: they start, and do what they say.
//!
//! A `Pod` holds namespaces of its own, as a sandbox would. Cgroups are left alone, so that this runs anywhere; limits are
//! shown by the system tests.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::runtime::Capability;

use super::tests::{Fixture, node, seccomp_profile};
use super::*;
use crate::containers::config::*;
use crate::containers::devices;
use crate::containers::users;

/// Whether crun can run here at all; says why not.
fn possible() -> bool {
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
struct Tmpfs(Utf8PathBuf);

impl Tmpfs {
    fn mount(path: Utf8PathBuf) -> Self {
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
struct Pod {
    dir: tempfile::TempDir,
    holder: Child,
    init: u32,
}

impl Pod {
    fn new() -> Self {
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

    fn path(&self, name: &str) -> Utf8PathBuf {
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

    fn namespace(&self, name: &str) -> Utf8PathBuf {
        format!("/proc/{}/ns/{name}", self.init).into()
    }

    /// A container that runs a shell script.
    fn container(&self, script: &str) -> Fixture {
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
    fn run(&self, fixture: &Fixture) -> (bool, String) {
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
    fn output(&self, fixture: &Fixture) -> String {
        let (ok, text) = self.run(fixture);
        assert!(ok, "{text}");
        text.trim_end().to_owned()
    }

    /// Output of a script in a container that is changed beforehand.
    fn shell(&self, script: &str, change: impl FnOnce(&mut Fixture)) -> String {
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

#[test]
fn a_plain_container_starts_in_its_pod() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let got = pod.shell(
        "id; hostname; echo $HOME $HOSTNAME; pwd; cat /etc/resolv.conf /etc/hostname; \
         ls /sys/class/net; echo pid $$; grep -E 'CapBnd|CapEff|NoNewPrivs|Seccomp:' /proc/self/status; \
         touch /new /dev/shm/x && echo writable; touch /sys/x 2>&1; ls -d /dev/pts /dev/mqueue",
        |_| {},
    );
    let expected = [
        "uid=0(root) gid=0(root) groups=0(root)",
        "pod-1\n/root pod-1\n/\nnameserver 192.0.2.1\npod-1\nlo\npid 1",
        "NoNewPrivs:\t0",
        "Seccomp:\t0",
        "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb",
        "writable",
        "Read-only file system",
        "/dev/mqueue\n/dev/pts",
    ];
    for part in expected {
        assert!(got.contains(part), "{part:?} is missing:\n{got}");
    }
    assert!(pod.path("shm/x").exists());
    assert!(!got.contains("eth0"), "{got}");
}

#[test]
fn users_and_rights() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let as_user = |fixture: &mut Fixture| {
        let user = RunAs {
            user: RunAsUser::Name("user".into()),
            group: None,
        };
        fixture.config.security.run_as = Some(user);
        fixture.config.security.supplemental_groups = vec![1234];
        let rootfs = fixture.rootfs.clone();
        fixture.user = users::resolve(&rootfs, "", &fixture.config.security).unwrap();
    };
    let got = pod.shell("id -u; id -g; id -G; echo $HOME", as_user);
    assert_eq!(got, "1000\n1000\n1000 1234 50000\n/home/user");

    let caps = "grep -E 'CapEff|CapAmb' /proc/self/status";
    assert!(
        pod.shell(caps, as_user)
            .contains("CapEff:\t0000000000000000")
    );
    let got = pod.shell(caps, |f| {
        as_user(f);
        f.config.security.capabilities.add_ambient = vec![Capability::NetBindService];
    });
    assert_eq!(got, "CapEff:\t0000000000000400\nCapAmb:\t0000000000000400");
    let none = CapabilityChanges {
        drop_all: true,
        ..CapabilityChanges::default()
    };
    let got = pod.shell("grep CapBnd /proc/self/status", |f| {
        f.config.security.capabilities = none;
    });
    assert_eq!(got, "CapBnd:\t0000000000000000");
    let all = CapabilityChanges {
        add_all: true,
        ..CapabilityChanges::default()
    };
    let got = pod.shell("cat /proc/self/status", |f| {
        f.config.security.capabilities = all;
    });
    let mine = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = |text: &str| {
        text.lines()
            .find(|l| l.starts_with("CapBnd"))
            .unwrap()
            .to_owned()
    };
    assert_eq!(bounding(&got), bounding(&mine));

    let got = pod.shell(
        "grep NoNewPrivs /proc/self/status; touch /x 2>&1 || true",
        |f| {
            f.config.security.no_new_privs = true;
            f.config.security.readonly_rootfs = true;
        },
    );
    assert_eq!(got, "NoNewPrivs:\t1\ntouch: /x: Read-only file system");
}

#[test]
fn privileged_containers_can_do_everything() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let script = "brctl addbr foobar && touch /sys/x 2>&1; mount -t tmpfs t /tmp && echo mounted; \
        ls /dev/null /dev/ptmx /dev/full; grep Seccomp: /proc/self/status; cat /proc/uptime";
    let got = pod.shell(script, |f| {
        f.config.security.privileged = true;
        f.config.security.seccomp = SeccompProfile::RuntimeDefault;
        f.config.security.masked_paths = vec!["/proc/uptime".into()];
        f.devices = devices::resolve(&f.config).unwrap();
    });
    assert!(
        got.contains("mounted") && got.contains("Seccomp:\t0"),
        "{got}"
    );
    assert!(!got.contains("Read-only"), "{got}");
    let (ok, got) = pod.run(&pod.container("brctl addbr foobaz"));
    assert!(!ok && got.contains("ermitted"), "{got}");
}

#[test]
fn filters_and_hidden_paths() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let seccomp = "grep Seccomp: /proc/self/status; chmod 400 /tmp 2>&1; echo $?";
    let got = pod.shell(seccomp, |f| {
        let default =
            crate::containers::seccomp::load(crate::containers::seccomp::DEFAULT_PATH.into());
        f.node.default_seccomp = Some(default.unwrap());
        f.config.security.seccomp = SeccompProfile::RuntimeDefault;
    });
    assert_eq!(got, "Seccomp:\t2\n0");
    let got = pod.shell(seccomp, |f| {
        f.localhost_seccomp = Some(seccomp_profile("chmod"));
        f.config.security.seccomp = SeccompProfile::Localhost("/p.json".into());
    });
    assert_eq!(got, "Seccomp:\t2\nchmod: /tmp: Operation not permitted\n1");
    let got = pod.shell("/bin/ls 2>&1; touch /tmp/test 2>&1; true", |f| {
        f.config.security.masked_paths = vec!["/bin/ls".into()];
        f.config.security.readonly_paths = vec!["/tmp".into()];
    });
    assert!(got.contains("Permission denied"), "{got}");
    assert!(
        got.contains("touch: /tmp/test: Read-only file system"),
        "{got}"
    );
}

#[test]
fn processes_of_others() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let cmdline = "cat /proc/1/cmdline";
    let pid = |mode: PidMode| move |f: &mut Fixture| f.config.security.namespaces.pid = mode;
    assert!(pod.shell(cmdline, |_| {}).contains("/proc/1/cmdline"));
    assert!(pod.shell(cmdline, pid(PidMode::Pod)).contains("sleep"));
    let got = pod.shell(cmdline, |f| {
        pid(PidMode::Target("x".into()))(f);
        f.target_pid = Some(pod.namespace("pid"));
    });
    assert!(got.contains("sleep"), "{got}");
    let init = std::fs::read_to_string("/proc/1/cmdline").unwrap();
    let got = pod.shell(cmdline, |f| {
        pid(PidMode::Node)(f);
        f.sandbox.pid = None;
    });
    assert_eq!(got, init.trim_end());
    let got = pod.shell("hostname; ls /sys/class/net", |f| {
        f.sandbox.network = None;
        f.sandbox.uts = None;
        f.config.security.namespaces.host_network = true;
    });
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    assert!(got.starts_with(&host), "{got}");
}

#[test]
fn what_is_mounted() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    for dir in ["rw", "ro/below", "volume", "nodev"] {
        std::fs::create_dir_all(pod.path("host").join(dir)).unwrap();
    }
    std::fs::write(pod.path("host/hosts"), "from kubelet\n").unwrap();
    let host = |name: &str| pod.path("host").join(name).into_string();
    // A mount below the read-only one, which only a recursive one covers.
    let _below = Tmpfs::mount(pod.path("host/ro/below"));
    let got = pod.shell(
        "cat /etc/hosts; touch /deep/er/rw/x && echo rw; touch /ro/x 2>&1; \
         touch /ro/below/x && echo below; touch /rro/below/y 2>&1; grep ' /flags ' /proc/mounts; \
         touch /volume/v && echo volume; pwd",
        |f| {
            f.mount(&host("hosts"), "/etc/hosts", |m| m.readonly = true);
            f.mount(&host("rw"), "/deep/er/rw", |_| {});
            f.mount(&host("ro"), "/ro", |m| m.readonly = true);
            f.mount(&host("ro"), "/rro", |m| {
                m.readonly = true;
                m.recursive_read_only = true;
            });
            f.mount(&host("nodev"), "/flags", |m| {
                m.options = MountFlag::ALL.to_vec();
            });
            let source = pod.path("host/volume");
            f.image_volumes.push(ImageVolumeMount {
                container_path: "/volume".into(),
                source,
            });
            f.config.working_dir = "/made/by/crun".into();
        },
    );
    for part in [
        "from kubelet\nrw\n",
        "touch: /ro/x: Read-only file system\nbelow\n",
        "touch: /rro/below/y: Read-only file system\n",
        "nosuid,nodev,noexec",
        "volume\n/made/by/crun",
    ] {
        assert!(got.contains(part), "{part:?} is missing:\n{got}");
    }
    assert!(pod.path("host/rw/x").exists() && pod.path("host/volume/v").exists());
}

/// What is mounted in a container reaches the host where it was asked for, and only there.
#[test]
fn mounts_propagate() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let shared = pod.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let _shared = Tmpfs::mount(shared.clone());
    let propagation = rustix::mount::MountPropagationFlags::SHARED;
    rustix::mount::mount_change(shared.as_str(), propagation).unwrap();
    for propagation in [
        Propagation::Private,
        Propagation::HostToContainer,
        Propagation::Bidirectional,
    ] {
        std::fs::create_dir_all(shared.join("inner")).unwrap();
        let script = "mount -t tmpfs t /vol/inner && touch /vol/inner/x";
        pod.shell(script, |f| {
            f.config.security.privileged = true;
            f.mount(shared.as_str(), "/vol", |m| m.propagation = propagation);
        });
        let seen = shared.join("inner/x").exists();
        assert_eq!(
            seen,
            propagation == Propagation::Bidirectional,
            "{propagation:?}"
        );
    }
}

#[test]
fn devices_appear() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let got = pod.shell("stat -c '%n %F %t %T %a' /dev/mine/zero; ls /dev", |f| {
        f.config.devices.push(Device {
            container_path: "/dev/mine/zero".into(),
            host_path: "/dev/zero".into(),
            permissions: "rw".into(),
        });
        f.devices = devices::resolve(&f.config).unwrap();
    });
    assert!(
        got.starts_with("/dev/mine/zero character special file 1 5 666"),
        "{got}"
    );
    assert!(!got.contains("kmsg"), "{got}");
}
