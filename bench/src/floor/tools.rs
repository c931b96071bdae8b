//! LXC, the CNI plugins, conmon and crun: how each is called, and what it is told in files.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use camino::Utf8Path;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::{Value, json};

use super::{Floor, make, read_pid, remove_file};
use crate::contender::Kind;
use crate::process::command;
use crate::{network, stage};

/// Where CNI plugins are in Debian.
const PLUGINS: &str = "/usr/lib/cni";

/// First of the host's ids that sandboxes are mapped to.
const IDS: &str = "100000 65536";

impl Floor {
    pub(super) fn start_lxc(&self, name: &str) -> anyhow::Result<u32> {
        let lxc = self.root.join("lxc");
        let dir = lxc.join(name);
        make(&dir)?;
        let file = dir.join("config");
        fs::write(&file, self.lxc_config(name)).with_context(|| format!("cannot write {file}"))?;
        // The daemon keeps its standard streams: /dev/null, not a pipe that nobody would see the end of.
        let status = command("/usr/bin/lxc-start")
            .args(["--daemon", "--quiet", "--name", name])
            .args(["--lxcpath", lxc.as_str(), "--rcfile", file.as_str()])
            .args([
                "--logfile",
                dir.join("log").as_str(),
                "--logpriority",
                "WARN",
            ])
            // As nexcage: not where newuidmap is, which maps only what /etc/subuid gives to root.
            .env("PATH", "/usr/sbin:/sbin")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot start lxc-start")?;
        if !status.success() {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            bail!("lxc-start failed: {status}\n{log}");
        }
        read_pid(&self.pod_cgroup(name).join("ct/sandbox/cgroup.procs"))
    }

    fn lxc_config(&self, name: &str) -> String {
        let rootfs = self.root.join("rootfs");
        let pod = format!("{}-floor/{name}", stage::NAME);
        format!(
            "lxc.uts.name = {name}\n\
             lxc.arch = {arch}\n\
             lxc.rootfs.path = dir:{rootfs}\n\
             lxc.rootfs.options = ro\n\
             lxc.init.cmd = /catatonit -P\n\
             lxc.signal.halt = SIGTERM\n\
             lxc.idmap = u 0 {IDS}\n\
             lxc.idmap = g 0 {IDS}\n\
             lxc.net.0.type = empty\n\
             lxc.mount.auto = proc:mixed sys:mixed\n\
             lxc.cgroup.relative = 0\n\
             lxc.cgroup.dir.monitor = {pod}/monitor\n\
             lxc.cgroup.dir.monitor.pivot = {pod}\n\
             lxc.cgroup.dir.container = {pod}/ct\n\
             lxc.cgroup.dir.container.inner = sandbox\n",
            arch = env::consts::ARCH,
        )
    }

    /// Pins the network namespace and calls the plugins, or the other way round.
    pub(super) fn cni(&self, verb: &str, name: &str, init: u32) -> anyhow::Result<()> {
        let netns = self.run.join("netns").join(name);
        if verb == "ADD" {
            fs::write(&netns, "").with_context(|| format!("cannot make {netns}"))?;
            mount_bind(format!("/proc/{init}/ns/net"), netns.as_str())
                .context("cannot pin the network namespace")?;
            let loopback = json!({ "cniVersion": "1.0.0", "name": "lo", "type": "loopback" });
            plugin("loopback", verb, "lo", name, &netns, &loopback)?;
        }
        plugin(
            "bridge",
            verb,
            "eth0",
            name,
            &netns,
            &network::plugin(Kind::Floor),
        )?;
        if verb == "DEL" {
            unmount(netns.as_str(), UnmountFlags::DETACH)
                .context("cannot unpin the network namespace")?;
            remove_file(&netns)?;
        }
        Ok(())
    }

    pub(super) fn create(
        &self,
        name: &str,
        dir: &Utf8Path,
        bundle: &Utf8Path,
    ) -> anyhow::Result<u32> {
        // No close-on-exec: conmon gets the writing end, by the number it has here.
        let (answer, sender) = rustix::pipe::pipe().context("cannot make a pipe")?;
        rustix::io::fcntl_setfd(&answer, rustix::io::FdFlags::CLOEXEC)
            .context("cannot keep a pipe")?;
        let crun = self.crun_line();
        let (program, arguments) = crun.split_first().context("no crun")?;
        let mut conmon = command("conmon");
        conmon
            .args([
                "--api-version",
                "--cid",
                name,
                "--cuuid",
                name,
                "--runtime",
                program,
            ])
            .args(arguments.iter().map(|arg| format!("--runtime-arg={arg}")))
            .args(["--bundle", bundle.as_str(), "--persist-dir", dir.as_str()])
            .args(["--exit-dir", self.run.join("exits").as_str()])
            .args(["--socket-dir-path", self.run.join("sockets").as_str()])
            .args(["--conmon-pidfile", dir.join("conmon.pid").as_str()])
            .args(["--container-pidfile", dir.join("app.pid").as_str()])
            .arg(format!("--log-path=k8s-file:{dir}/app.log"))
            .arg("--no-sync-log")
            .env("_OCI_SYNCPIPE", sender.as_raw_fd().to_string())
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = conmon.status().context("cannot start conmon")?;
        drop(sender);
        if !status.success() {
            bail!("conmon failed: {status}");
        }
        let mut line = String::new();
        BufReader::new(fs::File::from(answer))
            .read_line(&mut line)
            .context("conmon does not answer")?;
        let answer: Value = serde_json::from_str(&line).context("conmon's answer is no JSON")?;
        let pid = answer["data"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.with_context(|| format!("crun failed: {line}"))?;
        if !self.cgroups.usable {
            let cgroup = self.pod_cgroup(name).join("ct").join(name);
            make(&cgroup)?;
            fs::write(cgroup.join("cgroup.procs"), pid.to_string())
                .context("cannot move a container into its cgroup")?;
        }
        Ok(pid)
    }

    pub(super) fn crun(&self) -> std::process::Command {
        let mut crun = command("crun");
        crun.args(self.global_arguments());
        crun
    }

    fn global_arguments(&self) -> [String; 2] {
        let manager = if self.cgroups.usable {
            "cgroupfs"
        } else {
            "disabled"
        };
        [
            format!("--root={}", self.run.join("crun")),
            format!("--cgroup-manager={manager}"),
        ]
    }

    /// How `crun create` is called, program first.
    fn crun_line(&self) -> Vec<String> {
        // On a host with cgroup v1 controllers crun 1.8 refuses to create containers as long as cgroup v2 has a controller.
        const HIDE: &str = "\"$0\" --make-private /sys/fs/cgroup/unified \
            && \"$0\" --bind /dev/null /sys/fs/cgroup/unified/cgroup.controllers && exec \"$@\"";
        let controllers = Utf8Path::new(self.cgroups.mount).join("cgroup.controllers");
        let hide = !self.cgroups.usable && fs::read(controllers).is_ok_and(|text| !text.is_empty());
        let mut line: Vec<String> = Vec::new();
        if hide {
            let words = [
                "/usr/bin/unshare",
                "--mount",
                "--propagation=unchanged",
                "--",
                "/bin/sh",
                "-c",
            ];
            line.extend(words.map(str::to_owned));
            line.extend([HIDE.to_owned(), "/bin/mount".to_owned()]);
        }
        line.push("/usr/bin/crun".to_owned());
        line.extend(self.global_arguments());
        line
    }
}

/// One call of a CNI plugin (CNI specification, section 2).
fn plugin(
    kind: &str,
    verb: &str,
    interface: &str,
    name: &str,
    netns: &Utf8Path,
    config: &Value,
) -> anyhow::Result<()> {
    let mut child = command(format!("{PLUGINS}/{kind}"))
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", name)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", interface)
        .env("CNI_PATH", PLUGINS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start the CNI plugin {kind}"))?;
    let mut input = child.stdin.take().context("no pipe")?;
    input
        .write_all(config.to_string().as_bytes())
        .context("a CNI plugin does not read")?;
    drop(input);
    let output = child
        .wait_with_output()
        .context("cannot wait for a CNI plugin")?;
    if !output.status.success() {
        bail!(
            "CNI {verb} by {kind}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(())
}

/// The container's OCI configuration: namespaces of the sandbox, and the usual mounts.
pub(super) fn spec(dir: &Utf8Path, name: &str, init: u32, pod_cgroup: &Utf8Path) -> Value {
    let of_sandbox =
        |kind: &str, file: &str| json!({ "type": kind, "path": format!("/proc/{init}/ns/{file}") });
    let bind = |file: &str, at: &str| json!({ "destination": at, "type": "bind", "source": dir.join(file), "options": ["bind", "rw"] });
    let capabilities = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": stage::APP,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": { "path": dir.join("rootfs") },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            bind("shm", "/dev/shm"),
            bind("resolv.conf", "/etc/resolv.conf"),
            bind("hostname", "/etc/hostname"),
        ],
        "linux": {
            "cgroupsPath": pod_cgroup.join("ct").join(name).as_str().trim_start_matches("/sys/fs/cgroup"),
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "cgroup" },
                of_sandbox("network", "net"), of_sandbox("ipc", "ipc"), of_sandbox("uts", "uts"),
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/scsi",
                "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
