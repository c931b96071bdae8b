//! A simulator of a test's own.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start the simulator as their users do"
)]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_lxc::{ApiClient, ApiOptions};

const PROGRAM: &str = env!("CARGO_BIN_EXE_proxmox-sim");

/// The role that docs/proxmox.md gives.
pub(crate) const ROLE: &str = "VM.Audit VM.PowerMgmt";

/// Numbers for containers: of this process, and each used once.
static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct House {
    dir: tempfile::TempDir,
    pub(crate) port: u16,
    server: Option<Child>,
    vmids: Vec<u32>,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl House {
    /// `None` where the simulator cannot run; then it says why.
    pub(crate) fn new() -> Option<Self> {
        Self::with(&[])
    }

    pub(crate) fn with(options: &[&str]) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("psim").tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut house = Self {
            dir,
            port: listener.local_addr().unwrap().port(),
            server: None,
            vmids: Vec::new(),
        };
        drop(listener);
        house.serve(options);
        Some(house)
    }

    /// As [`new`](Self::new), where LXC is there too.
    pub(crate) fn with_lxc() -> Option<Self> {
        for program in [
            "/usr/bin/lxc-start",
            "/usr/bin/catatonit",
            "/usr/bin/busybox",
        ] {
            if !Utf8Path::new(program).exists() {
                eprintln!("skipped: there is no {program}");
                return None;
            }
        }
        let house = Self::new()?;
        let root = house.path("root");
        for below in ["dev", "proc", "sys", "bin", "mnt/v1"] {
            std::fs::create_dir_all(root.join(below)).unwrap();
        }
        for (program, name) in [("catatonit", "catatonit"), ("busybox", "bin/busybox")] {
            std::fs::copy(format!("/usr/bin/{program}"), root.join(name)).unwrap();
        }
        // The container's root must be able to go through.
        for dir in [house.path(""), root] {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(house)
    }

    pub(crate) fn serve(&mut self, options: &[&str]) {
        let port = self.port.to_string();
        let mut child = self
            .program()
            .arg("serve")
            .args(["--mount", self.path("pve").as_str()])
            .args(["--lxc-path", self.path("lxc").as_str()])
            .args(["--lock-dir", self.path("lock").as_str()])
            .args(["--run-dir", self.path("run").as_str()])
            .args(["--port", &port, "--unit", &format!("psim{port}")])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        self.server = Some(child);
    }

    /// Ends the simulator, as a shutdown of the node does or as a crash.
    pub(crate) fn end(&mut self, crash: bool) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        if crash {
            server.kill().unwrap();
        } else {
            let pid = rustix::process::Pid::from_child(&server);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        server.wait().unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::try_from(self.dir.path().join(name)).unwrap()
    }

    pub(crate) fn pve(&self, name: &str) -> Utf8PathBuf {
        self.path("pve").join(name)
    }

    fn program(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["--dir", self.path("sim").as_str()]);
        command
    }

    pub(crate) fn run(&self, words: &str) -> Ended {
        let arguments: Vec<_> = words.split(' ').filter(|word| !word.is_empty()).collect();
        self.run_words(&arguments)
    }

    pub(crate) fn run_words(&self, words: &[&str]) -> Ended {
        let output = self.program().args(words).output().unwrap();
        ended(output)
    }

    /// Runs a command that must end well.
    pub(crate) fn good(&self, words: &str) -> String {
        let ended = self.run(words);
        assert_eq!(ended.code, Some(0), "{words}: {ended:?}");
        ended.stdout
    }

    /// A number for a container that no other test has.
    pub(crate) fn vmid(&mut self) -> u32 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let vmid = 1_000_000 + u32::from(self.port) * 100 + number;
        self.vmids.push(vmid);
        vmid
    }

    /// A container's configuration, and a number for it.
    pub(crate) fn container(&mut self, more: &str) -> u32 {
        let vmid = self.vmid();
        let root = self.path("root");
        let init = if more.contains("lxc.init.cmd") {
            ""
        } else {
            "lxc.init.cmd: /catatonit -P\n"
        };
        let conf = format!(
            "arch: amd64\nhostname: pod-{vmid}\nmemory: 128\nostype: unmanaged\nrootfs: {root},ro=1,idmap=passthrough\nswap: 0\n\
             tags: nexcage\nunprivileged: 1\n{init}lxc.signal.halt: SIGTERM\n{more}"
        );
        std::fs::write(self.pve(&format!("lxc/{vmid}.conf")), conf).unwrap();
        vmid
    }

    /// Waits until a container's init listens to its halt signal: the kernel drops one that comes before.
    pub(crate) fn settle(&self, vmid: u32) {
        let verbose = self.good(&format!("pct status {vmid} --verbose"));
        let pid = verbose.lines().find_map(|line| line.strip_prefix("pid: "));
        let file = format!("/proc/{}/status", pid.unwrap());
        until("init listens", || {
            let status = std::fs::read_to_string(&file).unwrap();
            let masks = status.lines().filter_map(|line| {
                let mask = line
                    .strip_prefix("SigBlk:")
                    .or_else(|| line.strip_prefix("SigCgt:"));
                u64::from_str_radix(mask?.trim(), 16).ok()
            });
            masks.into_iter().any(|mask| mask & (1 << 14) != 0)
        });
    }

    /// nexcage's own client, with a token that has these privileges.
    pub(crate) fn client(&self, privileges: &str) -> ApiClient {
        self.good("pveum user add nexcage@pve");
        self.run_words(&["pveum", "role", "add", "Nexcage", "--privs", privileges]);
        for path in ["/vms", "/nodes/pve1"] {
            self.good(&format!(
                "pveum acl modify {path} --roles Nexcage --users nexcage@pve"
            ));
        }
        self.client_of_token()
    }

    /// The client with a new token, and whatever that may do.
    pub(crate) fn client_of_token(&self) -> ApiClient {
        self.write_token();
        let options = ApiOptions {
            url: format!("https://127.0.0.1:{}", self.port).parse().unwrap(),
            ca_file: self.pve("pve-root-ca.pem"),
            token_file: self.path("token"),
            node: "pve1".into(),
        };
        ApiClient::new(options).unwrap()
    }

    /// A new token, in the file that the client reads.
    pub(crate) fn write_token(&self) {
        let printed =
            self.good("pveum user token add nexcage@pve node --privsep 0 --output-format json");
        let token: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let (id, secret) = (
            token["full-tokenid"].as_str().unwrap(),
            token["value"].as_str().unwrap(),
        );
        std::fs::write(self.path("token"), format!("{id}={secret}\n")).unwrap();
        std::fs::set_permissions(self.path("token"), std::fs::Permissions::from_mode(0o600))
            .unwrap();
    }

    /// The kernel believes for a second what it knows of pmxcfs.
    pub(crate) fn quorum(&self, state: &str) {
        self.good(&format!("ctl quorum {state}"));
        std::thread::sleep(Duration::from_millis(1100));
    }

    /// Takes everything away, and proves that it is gone.
    pub(crate) fn finish(mut self) {
        self.end(false);
        self.good("sweep");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.path("").as_str()), "{mounts}");
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        assert!(!sockets.contains(self.path("lxc").as_str()), "{sockets}");
        assert!(!self.path("sim").exists() && !self.path("pve").exists());
        for vmid in &self.vmids {
            for left in [
                format!("lxc/{vmid}"),
                format!("run/ct-{vmid}.stderr"),
                format!("run/ct-{vmid}.warnings"),
            ] {
                assert!(!self.path(&left).exists(), "{left}");
            }
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // After a test that failed.
        if self.server.is_some() {
            self.end(true);
            let _ = self.program().arg("sweep").output();
        }
    }
}

fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Whether a FUSE file system can be mounted here; says why if not.
pub(crate) fn can_mount() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return false;
    }
    let there = Utf8Path::new("/dev/fuse").exists();
    if !there {
        eprintln!("skipped: there is no /dev/fuse");
    }
    there
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
