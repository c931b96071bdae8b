//! Starting: `vm_start`.

use std::fs;
use std::time::Duration;

use camino::Utf8PathBuf;

use super::{Node, check_lock};
use crate::conf::{Conf, Source, Volume};
use crate::died::{Died, Outcome, io_died};
use crate::lxc::{Facts, State, lxc_config, state};
use crate::program::{detach, has_systemd, run, wait_for};
use crate::storage;

/// How long LXC may take until it listens.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// How long it may take then. Proxmox itself waits for ever.
const RUN_LIMIT: Duration = Duration::from_secs(600);

const SYSTEMD_LIMIT: Duration = Duration::from_secs(60);

const LXC_CONFIG: &str = "/usr/share/lxc/config";

impl Node {
    /// The task `vzstart`. Gives warnings.
    ///
    /// # Errors
    ///
    /// In Proxmox's words.
    pub fn start(&self, vmid: u32) -> Outcome<Vec<String>> {
        self.locked(vmid, || {
            let conf = self.load(vmid)?;
            if conf.current.is("template") {
                return Err("you can't start a CT if it's a template".into());
            }
            check_lock(&conf, true)?;
            self.start_locked(vmid, conf)
        })
    }

    pub(super) fn start_locked(&self, vmid: u32, conf: Conf) -> Outcome<Vec<String>> {
        let conf = self.apply_pending(vmid, conf)?;
        self.update_lxc_config(vmid, &conf)?;
        for (_, volume) in volumes(&conf)? {
            if let Source::Volume(storage, name) = &volume.source {
                storage::activate(&self.storages().dataset(storage, name)?)?;
            }
        }
        let _ = fs::remove_file(self.house.stderr(vmid));
        let _ = fs::remove_file(self.house.warnings(vmid));
        let begun = self.run_lxc(vmid);
        let warnings = fs::read_to_string(self.house.warnings(vmid)).unwrap_or_default();
        let warnings = warnings.lines().map(str::to_owned).collect();
        begun.map(|()| warnings)
    }

    /// Puts into effect what waits to be, now that the container does not run.
    fn apply_pending(&self, vmid: u32, mut conf: Conf) -> Outcome<Conf> {
        if conf.pending.is_empty() && conf.delete.is_empty() {
            return Ok(conf);
        }
        conf.apply_pending();
        self.store(vmid, &conf)?;
        self.load(vmid)
    }

    /// Writes LXC's configuration anew, whatever is there.
    ///
    /// # Errors
    ///
    /// Something that must be there is missing.
    pub fn update_lxc_config(&self, vmid: u32, conf: &Conf) -> Outcome {
        let dir = self.house.container(vmid);
        if conf.current.is("template") {
            let _ = fs::remove_file(dir.join("config"));
            return Ok(());
        }
        let facts = Facts {
            dir: dir.clone(),
            common: self.included("common")?,
            userns: self.included("userns")?,
            controllers: self.hierarchies.v2_controllers().to_vec(),
            cpus: self.cpus(),
        };
        let config = lxc_config(vmid, conf, &facts)?;
        crate::sweep::note(&self.house, vmid).map_err(io_died("can't note", &dir))?;
        fs::create_dir_all(dir.join("rootfs")).map_err(io_died("mkdir", &dir))?;
        if let Some(rules) = config.seccomp {
            let common = format!("{LXC_CONFIG}/common.seccomp");
            let text = fs::read_to_string(&common).map_err(io_died("can't open", &common))?;
            let file = dir.join("rules.seccomp");
            fs::write(&file, text + &rules).map_err(io_died("unable to open file", &file))?;
        }
        let file = dir.join("config");
        fs::write(&file, config.text).map_err(io_died("unable to open file", &file))
    }

    /// What every container includes: LXC's own file of that name, and then what Proxmox's packages put beside it.
    fn included(&self, name: &str) -> Outcome<Utf8PathBuf> {
        let hook = |kind: &str, command: &str| -> Outcome<String> {
            let exe = std::env::current_exe().map_err(io_died("can't find", "proxmox-sim"))?;
            let (exe, dir) = (exe.display(), self.house.dir());
            Ok(format!(
                "lxc.hook.{kind} = {exe} --dir {dir} hook {command}\n"
            ))
        };
        let mut text = format!("lxc.include = {LXC_CONFIG}/{name}.conf\n");
        if name == "common" {
            text += &hook("pre-start", "pre-start")?;
            text += &hook("post-stop", "post-stop")?;
        } else {
            text += "lxc.cgroup2.devices.deny =\nlxc.cgroup2.devices.allow =\nlxc.cgroup2.devices.allow = a\n";
        }
        let file = self.house.lxc_dir().join(format!("{name}.conf"));
        // Not touched while others read it.
        if fs::read_to_string(&file).ok().as_ref() != Some(&text) {
            fs::write(&file, text).map_err(io_died("unable to open file", &file))?;
        }
        Ok(file)
    }

    /// CPUs that a container may be put on, in a random order.
    fn cpus(&self) -> Vec<u32> {
        let effective = self.hierarchies.v2_root().join("cpuset.cpus.effective");
        let text = fs::read_to_string(effective).unwrap_or_default();
        let mut cpus = parse_cpus(text.trim());
        let mut random = std::process::id() as usize;
        for last in (1..cpus.len()).rev() {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            cpus.swap(last, (random >> 33) % (last + 1));
        }
        cpus
    }

    fn run_lxc(&self, vmid: u32) -> Outcome {
        let lxc_path = self.house.options().lxc_path.clone();
        let stderr = self.house.stderr(vmid);
        let name = vmid.to_string();
        let arguments = ["-F", "-P", lxc_path.as_str(), "-n", &name];
        let mut monitor = if has_systemd() {
            self.run_unit(vmid, &arguments)?
        } else {
            let started = detach("/usr/bin/lxc-start", &arguments, &stderr);
            Monitor::Child(started.map_err(io_died("can't exec", "lxc-start"))?)
        };
        let mut seen = false;
        let mut look = || {
            let now = state(&lxc_path, vmid).unwrap_or(State::Other(-1));
            match now {
                State::Running => return Some(true),
                State::Stopped if seen => return Some(false),
                State::Stopped => {}
                State::Starting | State::Other(_) => seen = true,
            }
            monitor.has_ended().then_some(false)
        };
        let running = wait_for(BEGIN_LIMIT, &mut look).or_else(|| wait_for(RUN_LIMIT, look));
        if running == Some(true) {
            return Ok(());
        }
        for line in fs::read_to_string(&stderr).unwrap_or_default().lines() {
            eprintln!("{line}");
        }
        Err(Died::new(format!("startup for container '{vmid}' failed")))
    }

    /// Starts `lxc-start` as Proxmox's unit does.
    fn run_unit(&self, vmid: u32, arguments: &[&str]) -> Outcome<Monitor> {
        let unit = self.house.unit(vmid);
        let ask =
            |property: &str| run("systemctl", &["show", "-P", property, &unit], SYSTEMD_LIMIT);
        // The last one may still be about to end. systemd itself would wait for it, if the unit were not a transient one.
        wait_for(SYSTEMD_LIMIT, || {
            let state = ask("LoadState").unwrap_or_default();
            (state.trim() == "not-found").then_some(())
        });
        let exe = std::env::current_exe().map_err(io_died("can't find", "proxmox-sim"))?;
        let (exe, dir) = (exe.display(), self.house.dir());
        let mut command = vec![
            "--quiet".to_owned(),
            "--collect".to_owned(),
            format!("--unit={unit}"),
            format!("--description=PVE LXC Container: {vmid}"),
        ];
        let properties = [
            "Type=simple".to_owned(),
            "DefaultDependencies=no".to_owned(),
            "Delegate=yes".to_owned(),
            "KillMode=mixed".to_owned(),
            "TimeoutStopSec=120s".to_owned(),
            "StandardOutput=null".to_owned(),
            format!("StandardError=file:{}", self.house.stderr(vmid)),
            format!("ExecStop={exe} --dir {dir} hook stop-unit {vmid}"),
        ];
        command.extend(
            properties
                .into_iter()
                .map(|property| format!("--property={property}")),
        );
        command.extend(["--".to_owned(), "/usr/bin/lxc-start".to_owned()]);
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        run("systemd-run", &command, SYSTEMD_LIMIT)?;
        // 0 if it has ended already.
        let pid = ask("MainPID")?.trim().parse().unwrap_or(0);
        Ok(Monitor::Unit(pid))
    }
}

/// The process that stays with a container.
enum Monitor {
    Child(std::process::Child),
    /// Of a unit: its number.
    Unit(u32),
}

impl Monitor {
    fn has_ended(&mut self) -> bool {
        match self {
            Self::Child(child) => child.try_wait().is_ok_and(|status| status.is_some()),
            Self::Unit(pid) => !Utf8PathBuf::from(format!("/proc/{pid}/stat")).exists(),
        }
    }
}

/// What is mounted into a container, the root first.
pub(super) fn volumes(conf: &Conf) -> Outcome<Vec<(String, Volume)>> {
    let numbered = |number: u32| format!("mp{number}");
    let keys = ["rootfs".to_owned()]
        .into_iter()
        .chain((0..256).map(numbered));
    let present = keys.filter_map(|key| {
        let text = conf.current.get(&key)?;
        let volume = Volume::parse(&key, text).map_err(Died::new);
        Some(volume.map(|volume| (key, volume)))
    });
    present.collect()
}

/// `0-3,6`.
fn parse_cpus(text: &str) -> Vec<u32> {
    let ranges = text.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse::<u32>().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_cpus("0-3,6"), [0, 1, 2, 3, 6]);
        assert_eq!(parse_cpus(""), [0; 0]);
    }
}
