//! The floor: the steps that make a pod of LXC, CNI, overlayfs, conmon and crun, one after the other.
//!
//! There is no daemon, no database, no check, nothing that survives a crash: what a script would do, without the shell's own
//! time. The programs get the arguments that nexcage gives them, and containers the same namespaces and mounts.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::contender::Kind;
use crate::process::{self, command, run};
use crate::{network, stage};

/// Where CNI plugins are in Debian.
const PLUGINS: &str = "/usr/lib/cni";

/// First of the host's ids that sandboxes are mapped to.
const IDS: &str = "100000 65536";

/// What all pods share.
pub(crate) struct Floor {
    root: Utf8PathBuf,
    run: Utf8PathBuf,
    cgroups: Cgroups,
}

/// How cgroups are mounted.
struct Cgroups {
    /// Where cgroup v2 is.
    mount: &'static str,
    /// Whether crun can use them; it refuses hosts that still mount cgroup v1 controllers.
    usable: bool,
    /// Mount points of all hierarchies.
    hierarchies: Vec<Utf8PathBuf>,
}

impl Cgroups {
    fn find() -> anyhow::Result<Self> {
        let top = Utf8Path::new("/sys/fs/cgroup");
        if top.join("cgroup.controllers").exists() {
            return Ok(Self {
                mount: "/sys/fs/cgroup",
                usable: true,
                hierarchies: vec![top.to_owned()],
            });
        }
        let entries = top.read_dir_utf8().context("cannot read /sys/fs/cgroup")?;
        let hierarchies = entries.map(|entry| Ok(entry?.into_path()));
        Ok(Self {
            mount: "/sys/fs/cgroup/unified",
            usable: false,
            hierarchies: hierarchies
                .collect::<std::io::Result<_>>()
                .context("cannot read /sys/fs/cgroup")?,
        })
    }
}

/// A pod with one running container.
pub(crate) struct Pod {
    pub(crate) name: String,
    dir: Utf8PathBuf,
    init: u32,
    app: u32,
}

impl Pod {
    pub(crate) fn log(&self) -> Utf8PathBuf {
        self.dir.join("app.log")
    }
}

impl Floor {
    /// Unpacks the image and makes the sandboxes' root filesystem.
    pub(crate) fn prepare(registry: std::net::SocketAddr) -> anyhow::Result<Self> {
        let (root, run_dir) = (stage::root(Kind::Floor), stage::run(Kind::Floor));
        for dir in [
            "lxc",
            "rootfs/dev",
            "rootfs/proc",
            "rootfs/sys",
            "rootfs/run",
        ] {
            make(&root.join(dir))?;
        }
        for dir in ["netns", "pods", "crun", "exits", "sockets"] {
            make(&run_dir.join(dir))?;
        }
        fs::copy("/usr/bin/catatonit", root.join("rootfs/catatonit"))
            .context("cannot copy catatonit")?;
        let layout = root.join("layout");
        let from = format!("docker://{registry}/{}", stage::IMAGE_THERE);
        run(command("skopeo")
            .args(["copy", "--src-tls-verify=false", &from])
            .arg(format!("oci:{layout}:image")))?;
        run(command("umoci")
            .args(["unpack", "--image", &format!("{layout}:image")])
            .arg(root.join("image")))?;
        Ok(Self {
            root,
            run: run_dir,
            cgroups: Cgroups::find()?,
        })
    }

    /// From nothing to a running container.
    pub(crate) fn start(&self, number: u32) -> anyhow::Result<Pod> {
        let name = format!("{}-floor-{number}", stage::NAME);
        let dir = self.run.join("pods").join(&name);
        make(&dir)?;
        let init = self.start_lxc(&name)?;
        self.cni("ADD", &name, init)?;
        files(&dir, &name)?;
        let bundle = self.bundle(&name, &dir, init)?;
        let app = self.create(&name, &dir, &bundle)?;
        run(self.crun().args(["start", &name]))?;
        Ok(Pod {
            name,
            dir,
            init,
            app,
        })
    }

    /// Runs a command in the container.
    pub(crate) fn exec(&self, pod: &Pod) -> anyhow::Result<()> {
        run(self.crun().args(["exec", &pod.name]).args(stage::EXEC))?;
        Ok(())
    }

    /// From a running container to nothing.
    pub(crate) fn remove(&self, pod: &Pod) -> anyhow::Result<()> {
        let conmon = read_pid(&pod.dir.join("conmon.pid"))?;
        process::signal(pod.app, Signal::TERM);
        process::wait(conmon)?;
        run(self.crun().args(["delete", &pod.name]))?;
        unmount(pod.dir.join("rootfs").as_str(), UnmountFlags::empty())
            .context("cannot unmount the root filesystem")?;
        remove_tree(&self.root.join("uppers").join(&pod.name))?;

        self.cni("DEL", &pod.name, pod.init)?;
        let monitor = parent_of(pod.init)?;
        process::signal(pod.init, Signal::TERM);
        process::wait(monitor)?;
        unmount(pod.dir.join("shm").as_str(), UnmountFlags::empty())
            .context("cannot unmount /dev/shm")?;
        self.remove_cgroups(&pod.name)?;
        remove_tree(&self.root.join("lxc").join(&pod.name))?;
        remove_file(&self.run.join("exits").join(&pod.name))?;
        remove_file(&self.run.join("sockets").join(&pod.name))?;
        remove_tree(&pod.dir)
    }

    fn start_lxc(&self, name: &str) -> anyhow::Result<u32> {
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

    fn pod_cgroup(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::new(self.cgroups.mount)
            .join(format!("{}-floor", stage::NAME))
            .join(name)
    }

    /// LXC makes them in every hierarchy and leaves some.
    fn remove_cgroups(&self, name: &str) -> anyhow::Result<()> {
        let app = format!("ct/{name}");
        for hierarchy in &self.cgroups.hierarchies {
            let pod = hierarchy.join(format!("{}-floor", stage::NAME)).join(name);
            for below in [&app, "ct/sandbox", "ct", "monitor", "lxc.pivot", ""] {
                let dir = Utf8PathBuf::from(pod.join(below).as_str().trim_end_matches('/'));
                // A process that has just ended may still be counted.
                process::until(&format!("{dir} is removed"), || {
                    Ok(fs::remove_dir(&dir).is_ok() || !dir.exists())
                })?;
            }
        }
        Ok(())
    }

    /// Pins the network namespace and calls the plugins, or the other way round.
    fn cni(&self, verb: &str, name: &str, init: u32) -> anyhow::Result<()> {
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

    /// Mounts the root filesystem and writes `config.json`.
    fn bundle(&self, name: &str, dir: &Utf8Path, init: u32) -> anyhow::Result<Utf8PathBuf> {
        let upper = self.root.join("uppers").join(name);
        let rootfs = dir.join("rootfs");
        for dir in [&upper.join("upper"), &upper.join("work"), &rootfs] {
            make(dir)?;
        }
        let lower = self.root.join("image/rootfs");
        let options = format!("lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work");
        let options = std::ffi::CString::new(options).context("a path has a zero in it")?;
        mount(
            "overlay",
            rootfs.as_str(),
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .context("cannot mount the root filesystem")?;
        let bundle = dir.join("bundle");
        make(&bundle)?;
        let spec = spec(dir, name, init, &self.pod_cgroup(name));
        fs::write(bundle.join("config.json"), spec.to_string()).context("cannot write a spec")?;
        Ok(bundle)
    }

    fn create(&self, name: &str, dir: &Utf8Path, bundle: &Utf8Path) -> anyhow::Result<u32> {
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

    fn crun(&self) -> std::process::Command {
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

/// resolv.conf, hostname and a /dev/shm of 64 MiB.
fn files(dir: &Utf8Path, name: &str) -> anyhow::Result<()> {
    fs::write(dir.join("resolv.conf"), "nameserver 10.96.0.10\n")
        .and_then(|()| fs::write(dir.join("hostname"), format!("{name}\n")))
        .and_then(|()| fs::create_dir(dir.join("shm")))
        .context("cannot make a pod's files")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(
        "shm",
        dir.join("shm").as_str(),
        "tmpfs",
        flags,
        Some(c"mode=1777,size=67108864"),
    )
    .context("cannot mount /dev/shm")
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
fn spec(dir: &Utf8Path, name: &str, init: u32, pod_cgroup: &Utf8Path) -> Value {
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

fn make(dir: &Utf8Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))
}

fn remove_tree(dir: &Utf8Path) -> anyhow::Result<()> {
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {dir}"))
}

/// Removes a file that may be gone.
fn remove_file(file: &Utf8Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {file}"))
        }
        _ => Ok(()),
    }
}

fn read_pid(file: &Utf8Path) -> anyhow::Result<u32> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let first = text.lines().next().unwrap_or_default();
    first
        .parse()
        .with_context(|| format!("{file} has no process id"))
}

fn parent_of(pid: u32) -> anyhow::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the init is gone")?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let parent = parent.context("a process without parent")?;
    parent.trim().parse().context("no process id")
}
