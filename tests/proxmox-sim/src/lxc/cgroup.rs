//! What a container uses, as `PVE::CGroup` reads it: from the cgroup that the monitor names, on cgroup v2 and on hybrid machines.

use std::collections::BTreeMap;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use super::command::limiting_cgroup;

const ROOT: &str = "/sys/fs/cgroup";

/// Which hierarchies there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    /// Where cgroup v2 is, and its controllers.
    v2: (Utf8PathBuf, Vec<String>),
    /// Controllers that have a hierarchy of their own.
    v1: Vec<String>,
}

/// What a container uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes without the page cache.
    pub memory: u64,
    /// Bytes.
    pub swap: u64,
    /// Milliseconds of CPU since it was started.
    pub cpu_ms: u64,
    /// Bytes.
    pub disk_read: u64,
    /// Bytes.
    pub disk_write: u64,
}

impl Hierarchies {
    /// Those of this machine.
    pub fn read() -> Self {
        let unified = Utf8Path::new(ROOT).join("cgroup.controllers");
        let hybrid = Utf8Path::new(ROOT).join("unified");
        let at = if unified.exists() {
            ROOT.into()
        } else {
            hybrid
        };
        let names = std::fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
        let names = names.split_whitespace().map(str::to_owned).collect();
        let all = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let v1 = all.lines().filter_map(|line| line.split('\t').next());
        let v1 = v1.filter(|name| Utf8Path::new(ROOT).join(name).is_dir());
        Self {
            v2: (at, names),
            v1: v1.map(str::to_owned).collect(),
        }
    }

    /// Whether there is cgroup v2 alone.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty()
    }

    /// Controllers of cgroup v2.
    pub fn v2_controllers(&self) -> &[String] {
        &self.v2.1
    }

    /// Where cgroup v2 is.
    pub fn v2_root(&self) -> &Utf8Path {
        &self.v2.0
    }

    /// Directories where a cgroup of this path may be.
    pub fn everywhere(&self, path: &str) -> Vec<Utf8PathBuf> {
        let v1 = self.v1.iter().map(|name| Utf8Path::new(ROOT).join(name));
        let roots = v1.chain([Utf8Path::new(ROOT).join("systemd"), self.v2.0.clone()]);
        roots.map(|root| root.join(path)).collect()
    }

    /// The container's cgroup for a controller, and whether it is of version 2; `None` if it does not run or there is no such controller.
    fn path(
        &self,
        lxc_path: &Utf8Path,
        vmid: u32,
        controller: &str,
    ) -> io::Result<Option<(Utf8PathBuf, bool)>> {
        let unified = self.v2.1.iter().any(|name| name == controller);
        let root = match unified {
            true => self.v2.0.clone(),
            false if self.v1.iter().any(|name| name == controller) => {
                Utf8Path::new(ROOT).join(controller)
            }
            false => return Ok(None),
        };
        let path = limiting_cgroup(lxc_path, vmid, controller)?;
        Ok(path.map(|path| (root.join(path), unified)))
    }

    /// What a container uses.
    ///
    /// # Errors
    ///
    /// Its monitor does not answer, its cgroups are gone, or a file is missing in one that a controller should have put there.
    pub fn usage(&self, lxc_path: &Utf8Path, vmid: u32) -> io::Result<Usage> {
        let mut usage = Usage::default();
        if let Some((dir, unified)) = self.path(lxc_path, vmid, "memory")? {
            let stat = flat(&dir.join("memory.stat"))?;
            let stat = |key: &str| stat.get(key).copied().unwrap_or(0);
            (usage.memory, usage.swap) = match unified {
                true => {
                    let memory = number(&dir.join("memory.current"))?;
                    let swap = number(&dir.join("memory.swap.current"))?;
                    (memory.saturating_sub(stat("file")), swap)
                }
                false => {
                    let memory = number(&dir.join("memory.usage_in_bytes"))?;
                    let both = number(&dir.join("memory.memsw.usage_in_bytes")).unwrap_or(memory);
                    (
                        memory.saturating_sub(stat("total_cache")),
                        both.saturating_sub(memory),
                    )
                }
            };
        }
        let cpu = match self.path(lxc_path, vmid, "cpuacct")? {
            Some(found) => Some(found),
            None => self.path(lxc_path, vmid, "cpu")?,
        };
        if let Some((dir, unified)) = cpu {
            let (file, keys, per_ms) = match unified {
                true => ("cpu.stat", ["user_usec", "system_usec"], 1000),
                // Ticks of a hundredth of a second, turned round below.
                false => ("cpuacct.stat", ["user", "system"], 0),
            };
            let stat = flat(&dir.join(file))?;
            let times = keys.map(|key| stat.get(key).copied().unwrap_or(0));
            usage.cpu_ms = match per_ms {
                0 => times.iter().map(|ticks| ticks * 10).sum(),
                per_ms => times.iter().map(|time| time / per_ms).sum(),
            };
        }
        if let Some((dir, true)) = self.path(lxc_path, vmid, "io")? {
            let text = std::fs::read_to_string(dir.join("io.stat"))?;
            (usage.disk_read, usage.disk_write) = io_bytes(&text);
        }
        Ok(usage)
    }

    /// Changes a limit of a running container on cgroup v2.
    ///
    /// # Errors
    ///
    /// It does not run, its monitor does not answer, or the kernel refuses.
    pub fn set(
        &self,
        lxc_path: &Utf8Path,
        vmid: u32,
        controller: &str,
        values: &[(&str, String)],
    ) -> io::Result<()> {
        match self.path(lxc_path, vmid, controller)? {
            Some((dir, true)) => {
                let mut files = values.iter();
                files.try_for_each(|(file, value)| std::fs::write(dir.join(file), value))
            }
            // A controller that is not there limits nothing.
            Some((_, false)) | None => Ok(()),
        }
    }
}

fn number(file: &Utf8Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(file)?;
    text.trim().parse().map_err(io::Error::other)
}

/// Lines `key value`.
fn flat(file: &Utf8Path) -> io::Result<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string(file)?;
    let lines = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    });
    Ok(lines.collect())
}

/// `io.stat`: bytes read and written on all devices.
fn io_bytes(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let values = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(key));
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_added_up() {
        let text =
            "8:0 rbytes=100 wbytes=5 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n";
        assert_eq!(io_bytes(text), (101, 7));
        assert_eq!(io_bytes(""), (0, 0));
    }

    #[test]
    fn this_machine_has_hierarchies() {
        let hierarchies = Hierarchies::read();
        let all = hierarchies.everywhere("lxc/100");
        assert!(
            all.iter()
                .all(|dir| dir.starts_with(ROOT) && dir.ends_with("lxc/100"))
        );
    }
}
