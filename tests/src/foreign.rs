//! Somebody else's containers on a Proxmox node, which are never touched: their configurations, their directories, and one that runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use crate::{Proxmox, process, wait};

/// Where Proxmox, and so the simulator, keeps what `lxc-start` says.
const MESSAGES: &str = "/run/pve";

/// What LXC keeps beside the containers' directories.
const LOCKS: &str = "/run/lxc/lock";
const LOGS: &str = "/var/log/lxc";

/// Seconds that LXC, Proxmox and the daemon may take, also on an emulated machine.
const PATIENCE: u64 = 60;

/// The first process of the one that runs.
const INIT: &str = "/usr/bin/catatonit";

/// Containers around and among the numbers of pods, named and tagged like pods. Dropping it removes them.
#[derive(Debug)]
pub struct Foreign<'a> {
    proxmox: &'a Proxmox,
    containers: Vec<Container>,
}

/// One of them, as it was when it was made.
#[derive(Debug)]
struct Container {
    vmid: u32,
    before: State,
}

/// All of a container that others could change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// Proxmox's configuration, byte by byte.
    conf: Vec<u8>,
    /// What is below its directory and its root.
    entries: BTreeMap<Utf8PathBuf, Entry>,
    /// If it runs.
    init: Option<Init>,
}

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    modified: SystemTime,
    /// Of a file.
    content: Option<Vec<u8>>,
}

/// The first process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Init {
    pid: i32,
    /// `/proc/<pid>/cgroup`.
    cgroups: String,
}

/// How one is made.
struct Plan {
    vmid: u32,
    hostname: &'static str,
    tags: Option<&'static str>,
    runs: bool,
}

impl<'a> Foreign<'a> {
    /// Makes them.
    ///
    /// # Errors
    ///
    /// If one cannot be made, or does not start.
    pub fn place(proxmox: &'a Proxmox) -> anyhow::Result<Self> {
        let mut foreign = Self {
            proxmox,
            containers: Vec::new(),
        };
        make_root(&foreign.root())?;
        for plan in plans(proxmox.pods()) {
            let vmid = plan.vmid;
            // Known from its beginning, so that nothing stays of one that is half made.
            foreign.containers.push(Container {
                vmid,
                before: State::nothing(),
            });
            foreign
                .make(&plan)
                .with_context(|| format!("somebody else's container {vmid}"))?;
        }
        // Only now that all of them are there: they share a root.
        for i in 0..foreign.containers.len() {
            foreign.containers[i].before = foreign.look(foreign.containers[i].vmid)?;
        }
        ensure!(!foreign.processes().is_empty(), "none of them runs");
        Ok(foreign)
    }

    /// Their numbers, in order.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.containers.iter().map(|ct| ct.vmid).collect()
    }

    /// The first processes of those that run, and their monitors.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        let inits = self
            .containers
            .iter()
            .filter_map(|ct| ct.before.init.as_ref());
        inits
            .flat_map(|init| [Some(init.pid), parent(init.pid)])
            .flatten()
            .collect()
    }

    /// Fails if there are others, or one of them is not as it was.
    ///
    /// # Errors
    ///
    /// With what has changed.
    pub fn check(&self) -> anyhow::Result<()> {
        let numbers = self.numbers();
        let mut left = Vec::new();
        // What was destroyed behind the daemon's back, it finds out in a moment.
        let alone = wait::until_true("no other containers", PATIENCE, || {
            left = [self.proxmox.numbers()?, self.proxmox.directories()?].concat();
            left.retain(|vmid| !numbers.contains(vmid));
            Ok(left.is_empty())
        });
        alone.with_context(|| format!("containers are left: {left:?}"))?;
        for ct in &self.containers {
            let now = self.look(ct.vmid);
            let untouched = now.and_then(|now| ct.before.expect(&now));
            untouched.with_context(|| format!("somebody else's container {}", ct.vmid))?;
        }
        Ok(())
    }

    /// Ends and removes them.
    ///
    /// # Errors
    ///
    /// If something of one stays.
    pub fn remove(mut self) -> anyhow::Result<()> {
        self.remove_all()
    }

    fn make(&self, plan: &Plan) -> anyhow::Result<()> {
        let vmid = plan.vmid;
        let write = |path: &Utf8Path, text: &str| {
            fs::write(path, text).with_context(|| format!("cannot write {path}"))
        };
        write(&self.proxmox.conf(vmid), &plan.conf(&self.root()))?;
        if plan.runs {
            return self.proxmox.pct(&["start", &vmid.to_string()]).map(drop);
        }
        // As one leaves it that has run once.
        let directory = self.proxmox.container(vmid);
        let rootfs = directory.join("rootfs");
        fs::create_dir_all(&rootfs).with_context(|| format!("cannot make {rootfs}"))?;
        let config = format!(
            "lxc.uts.name = {}\nlxc.rootfs.path = {rootfs}\n",
            plan.hostname
        );
        write(&directory.join("config"), &config)?;
        write(&directory.join("rules.seccomp"), "2\ndenylist\n")
    }

    /// The root file system of all of them.
    fn root(&self) -> Utf8PathBuf {
        self.proxmox.place().directory.join("foreign")
    }

    fn look(&self, vmid: u32) -> anyhow::Result<State> {
        let conf = self.proxmox.conf(vmid);
        let mut entries = BTreeMap::new();
        for directory in [self.proxmox.container(vmid), self.root()] {
            look_below(&directory, &mut entries)?;
        }
        Ok(State {
            conf: fs::read(&conf).with_context(|| format!("cannot read {conf}"))?,
            entries,
            init: self.init(vmid)?,
        })
    }

    /// As Proxmox tells of it.
    fn init(&self, vmid: u32) -> anyhow::Result<Option<Init>> {
        let status = ["status", &vmid.to_string(), "--verbose"];
        let status = self.proxmox.pct(&status)?;
        let pid = status.lines().find_map(|line| line.strip_prefix("pid: "));
        let Some(pid) = pid else {
            return Ok(None);
        };
        let file = format!("/proc/{pid}/cgroup");
        Ok(Some(Init {
            pid: pid.parse().with_context(|| format!("in {status}"))?,
            cgroups: fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?,
        }))
    }

    fn remove_all(&mut self) -> anyhow::Result<()> {
        while let Some(ct) = self.containers.pop() {
            self.remove_one(ct.vmid)
                .with_context(|| format!("cannot remove container {}", ct.vmid))?;
        }
        gone(fs::remove_dir_all(self.root())).context("cannot remove their root")
    }

    fn remove_one(&self, vmid: u32) -> anyhow::Result<()> {
        let number = vmid.to_string();
        if self.proxmox.conf(vmid).exists() {
            if let Some(init) = self.init(vmid)? {
                let monitor = parent(init.pid).context("it has no monitor")?;
                self.proxmox.pct(&["stop", &number])?;
                // Until then its hooks write what is removed below.
                wait::until_true("its monitor ends", PATIENCE, || Ok(!process::runs(monitor)))?;
                wait::until_true("its unit ends", PATIENCE, || unit_has_ended(vmid))?;
            }
            self.proxmox.pct(&["destroy", &number])?;
        }
        // What Proxmox and LXC leave.
        let below = self
            .proxmox
            .place()
            .lxc_path
            .as_str()
            .trim_start_matches('/');
        for file in [
            format!("{MESSAGES}/ct-{vmid}.stderr"),
            format!("{MESSAGES}/ct-{vmid}.warnings"),
            format!("{LOCKS}/{below}/.{vmid}"),
            format!("{LOGS}/{vmid}.log"),
        ] {
            gone(fs::remove_file(&file)).with_context(|| format!("cannot remove {file}"))?;
        }
        let directory = self.proxmox.container(vmid);
        gone(fs::remove_dir_all(&directory)).with_context(|| format!("cannot remove {directory}"))
    }
}

impl Drop for Foreign<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove_all() {
            eprintln!("{error:#}");
        }
    }
}

/// Those that could be mistaken for a pod, in the order of their numbers.
fn plans(pods: std::ops::Range<u32>) -> [Plan; 5] {
    let ours = Some("k8s;nexcage");
    let plan = |vmid, hostname, tags, runs| Plan {
        vmid,
        hostname,
        tags,
        runs,
    };
    [
        plan(pods.start - 1, "nexcage-pod", None, false),
        plan(pods.start + 3, "churn-0", ours, true),
        plan(pods.start + 5, "churn-1", Some("k8s;nexcage;nxt"), false),
        plan(pods.end, "churn-2", None, false),
        // Its number begins with that of a pod.
        plan((pods.start + 1) * 10, "churn-0", ours, false),
    ]
}

impl Plan {
    fn conf(&self, root: &Utf8Path) -> String {
        let hostname = self.hostname;
        let tags = self.tags.map(|tags| format!("tags: {tags}\n"));
        let tags = tags.unwrap_or_default();
        format!(
            "arch: amd64\nhostname: {hostname}\nmemory: 128\nostype: unmanaged\n\
             rootfs: {root},ro=1,idmap=passthrough\nswap: 0\n{tags}unprivileged: 1\n\
             lxc.init.cmd: /catatonit -P\nlxc.signal.halt: SIGTERM\n"
        )
    }
}

impl State {
    fn nothing() -> Self {
        Self {
            conf: Vec::new(),
            entries: BTreeMap::new(),
            init: None,
        }
    }

    /// Fails unless it is the same now.
    fn expect(&self, now: &Self) -> anyhow::Result<()> {
        ensure!(
            self.conf == now.conf,
            "its configuration is\n{}and was\n{}",
            String::from_utf8_lossy(&now.conf),
            String::from_utf8_lossy(&self.conf)
        );
        ensure!(
            self.init == now.init,
            "its first process is {:?} and was {:?}",
            now.init,
            self.init
        );
        let paths = self.entries.keys().chain(now.entries.keys());
        for path in paths {
            match (self.entries.get(path), now.entries.get(path)) {
                (before, after) if before == after => {}
                (Some(_), Some(_)) => bail!("{path} was changed"),
                (Some(_), None) => bail!("{path} is gone"),
                (None, _) => bail!("{path} is new"),
            }
        }
        Ok(())
    }
}

/// A tree with a first process, which the container's root may read.
fn make_root(root: &Utf8Path) -> anyhow::Result<()> {
    for below in ["dev", "proc", "sys"] {
        let path = root.join(below);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {path}"))?;
    }
    let init = root.join("catatonit");
    fs::copy(INIT, &init).with_context(|| format!("cannot copy {INIT} to {init}"))?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot open {root} to all"))
}

/// Notes a directory and all that is in it.
fn look_below(
    directory: &Utf8Path,
    entries: &mut BTreeMap<Utf8PathBuf, Entry>,
) -> anyhow::Result<()> {
    let mut todo = vec![directory.to_owned()];
    while let Some(path) = todo.pop() {
        let look = || -> std::io::Result<(Entry, Vec<Utf8PathBuf>)> {
            let metadata = fs::symlink_metadata(&path)?;
            let content = metadata.is_file().then(|| fs::read(&path)).transpose()?;
            let below = match metadata.is_dir() {
                true => path.read_dir_utf8()?.collect::<Result<Vec<_>, _>>()?,
                false => Vec::new(),
            };
            let entry = Entry {
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                modified: metadata.modified()?,
                content,
            };
            Ok((
                entry,
                below
                    .into_iter()
                    .map(camino::Utf8DirEntry::into_path)
                    .collect(),
            ))
        };
        let (entry, below) = look().with_context(|| format!("cannot look at {path}"))?;
        todo.extend(below);
        entries.insert(path, entry);
    }
    Ok(())
}

/// Whether systemd, where it is, is done with a container that Proxmox has started. It runs a program of Proxmox's after the monitor's end,
/// and that `lxc-stop`: until then LXC's lock and log, and the file for what is said, are made anew.
fn unit_has_ended(vmid: u32) -> anyhow::Result<bool> {
    if !Utf8Path::new("/run/systemd/system").exists() {
        return Ok(true);
    }
    let unit = format!("pve-container@{vmid}.service");
    let show = ["show", "--property=ActiveState", "--value", &unit];
    let state = process::run("systemctl", &show, PATIENCE)?.success()?;
    Ok(!matches!(state.trim(), "active" | "deactivating"))
}

/// The number of a process's parent, if it runs.
fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}

/// What is not there is gone.
fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_order_and_all_valid() {
        // The highest that a test may get.
        let plans = plans(90_999_900..91_000_000);
        assert!(plans.is_sorted_by_key(|plan| plan.vmid));
        assert!(plans.iter().all(|plan| plan.vmid <= 999_999_999));
    }

    #[test]
    fn every_change_is_seen() {
        let directory = std::env::temp_dir().join(format!("nxt-foreign-{}", std::process::id()));
        let directory = Utf8PathBuf::try_from(directory).unwrap();
        fs::create_dir_all(directory.join("rootfs")).unwrap();
        fs::write(directory.join("config"), "a").unwrap();
        let look = || {
            let mut state = State::nothing();
            look_below(&directory, &mut state.entries).unwrap();
            state
        };
        let before = look();
        assert_eq!(before.entries.len(), 3);
        before.expect(&look()).unwrap();

        fs::write(directory.join("config"), "b").unwrap();
        let error = before.expect(&look()).unwrap_err().to_string();
        assert!(error.contains("config was changed"), "{error}");
        let before = look();
        fs::remove_dir(directory.join("rootfs")).unwrap();
        assert!(before.expect(&look()).is_err());
        let mut conf = look();
        conf.conf = b"x".to_vec();
        assert!(look().expect(&conf).is_err());
        let mut ended = look();
        ended.init = Some(Init {
            pid: 1,
            cgroups: String::new(),
        });
        assert!(ended.expect(&look()).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
