//! The floor: the steps that make a pod of LXC, CNI, overlayfs, conmon and crun, one after the other.
//!
//! There is no daemon, no database, no check, nothing that survives a crash: what a script would do, without the shell's own
//! time. The programs get the arguments that nexcage gives them, and containers the same namespaces and mounts.
//!
//! Here is the pod's life; [`tools`] is how the programs are called.

mod tools;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;

use crate::contender::Kind;
use crate::process::{self, command, run};
use crate::stage;

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

    /// From nothing to a running container. Says how long it took until there was all that RunPodSandbox makes.
    pub(crate) fn start(&self, number: u32) -> anyhow::Result<(Pod, Duration)> {
        let begun = Instant::now();
        let name = format!("{}-floor-{number}", stage::NAME);
        let dir = self.run.join("pods").join(&name);
        make(&dir)?;
        let init = self.start_lxc(&name)?;
        self.cni("ADD", &name, init)?;
        files(&dir, &name)?;
        let sandbox = begun.elapsed();
        let bundle = self.bundle(&name, &dir, init)?;
        let app = self.create(&name, &dir, &bundle)?;
        run(self.crun().args(["start", &name]))?;
        let pod = Pod {
            name,
            dir,
            init,
            app,
        };
        Ok((pod, sandbox))
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
        let spec = tools::spec(dir, name, init, &self.pod_cgroup(name));
        fs::write(bundle.join("config.json"), spec.to_string()).context("cannot write a spec")?;
        Ok(bundle)
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
