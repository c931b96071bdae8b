//! Changing a container's configuration: `update_pct_config`, with the privileges that each key takes.

use std::collections::BTreeMap;

use super::{Node, check_lock};
use crate::access::{ROOT, Users};
use crate::conf::{Conf, Section, Volume, value_of};
use crate::died::{Died, Outcome};
use crate::lxc::{cpu_quota, memory_limits};

/// Who asks for something.
#[derive(Clone, Debug)]
pub struct Caller {
    /// A user or token.
    pub who: String,
    /// What everybody may do.
    pub users: Users,
}

/// What is to be changed.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Keys and their new values, which have been checked.
    pub values: BTreeMap<String, String>,
    /// Keys to remove.
    pub delete: Vec<String>,
    /// Keys whose pending change is taken back.
    pub revert: Vec<String>,
    /// SHA-1 of the file as the caller knows it.
    pub digest: Option<String>,
}

/// Keys that take effect at once, since nothing has to be done for them.
const AT_ONCE: [&str; 9] = [
    "description",
    "onboot",
    "startup",
    "protection",
    "hostname",
    "hookscript",
    "cores",
    "tags",
    "lock",
];

impl Caller {
    /// The administrator.
    pub fn root() -> Self {
        Self {
            who: ROOT.to_owned(),
            users: Users::default(),
        }
    }

    /// Refuses whoever lacks a privilege on a path.
    ///
    /// # Errors
    ///
    /// Which is missing.
    pub fn check(&self, path: &str, privilege: &str) -> Outcome {
        match self.may(path, privilege) {
            true => Ok(()),
            false => Err(Died::forbidden(&format!("{path}, {privilege}"))),
        }
    }

    /// Refuses whoever lacks all of some privileges on a path.
    ///
    /// # Errors
    ///
    /// Which would do.
    pub fn check_any(&self, path: &str, privileges: &[&str]) -> Outcome {
        match privileges.iter().any(|privilege| self.may(path, privilege)) {
            true => Ok(()),
            false => Err(Died::forbidden(&format!(
                "{path}, {}",
                privileges.join("|")
            ))),
        }
    }

    /// Whether a privilege is held on a path.
    pub fn may(&self, path: &str, privilege: &str) -> bool {
        self.users
            .permissions(&self.who, path)
            .contains_key(privilege)
    }

    /// Whether a key of a container may be changed.
    fn check_key(&self, vmid: u32, key: &str, new: Option<&str>, old: &Section) -> Outcome {
        if self.who == ROOT {
            return Ok(());
        }
        let path = format!("/vms/{vmid}");
        let numbered = |name: &str| {
            key.strip_prefix(name)
                .is_some_and(|n| n.parse::<u32>().is_ok())
        };
        match key {
            "cores" | "cpuunits" | "cpulimit" => self.check(&path, "VM.Config.CPU"),
            "memory" | "swap" => self.check(&path, "VM.Config.Memory"),
            "hostname" | "nameserver" | "searchdomain" => self.check(&path, "VM.Config.Network"),
            "features" => self.check_features(&path, new, old),
            "hookscript" => {
                let words = "changing the hookscript is only allowed for root@pam";
                Err(Died::forbidden(words))
            }
            _ if key == "rootfs" || numbered("mp") => self.check_volume(&path, key, new),
            _ if numbered("net") => self.check(&path, "VM.Config.Network"),
            _ if numbered("dev") => {
                let words = "configuring device passthrough is only allowed for root@pam";
                Err(Died::forbidden(words))
            }
            _ => self.check(&path, "VM.Config.Options"),
        }
    }

    fn check_volume(&self, path: &str, key: &str, new: Option<&str>) -> Outcome {
        self.check(path, "VM.Config.Disk")?;
        let Some(new) = new else {
            return Ok(());
        };
        match Volume::parse(key, new)?.source.kind() {
            "volume" => Ok(()),
            kind => {
                let words = format!("mount point type {kind} is only allowed for root@pam");
                Err(Died::forbidden(&words))
            }
        }
    }

    fn check_features(&self, path: &str, new: Option<&str>, old: &Section) -> Outcome {
        if !old.is("unprivileged") {
            let words =
                "changing feature flags for privileged container is only allowed for root@pam";
            return Err(Died::forbidden(words));
        }
        let read = |text: &str| {
            let parts = text.split(',').filter(|part| !part.is_empty());
            parts
                .map(str::to_owned)
                .collect::<std::collections::BTreeSet<_>>()
        };
        let (new, old) = (
            read(new.unwrap_or_default()),
            read(old.get("features").unwrap_or_default()),
        );
        let others = new
            .symmetric_difference(&old)
            .any(|part| !part.starts_with("nesting="));
        if others {
            let words = "changing feature flags (except nesting) is only allowed for root@pam";
            return Err(Died::forbidden(words));
        }
        self.check(path, "VM.Allocate")
    }
}

impl Node {
    /// `PUT …/config` and `pct set`.
    ///
    /// # Errors
    ///
    /// In Proxmox's words.
    pub fn change(&self, vmid: u32, caller: &Caller, wanted: &Wanted) -> Outcome {
        if wanted.values.is_empty() && wanted.delete.is_empty() && wanted.revert.is_empty() {
            return Err("no options specified".into());
        }
        self.locked(vmid, || {
            let mut conf = self.load(vmid)?;
            check_lock(&conf, false)?;
            self.check_wanted(vmid, caller, wanted, &conf)?;
            let touched = ask_for(vmid, wanted, &mut conf)?;
            conf.forget_settled();
            if self.is_running(vmid) {
                self.hotplug(vmid, &mut conf, &touched)?;
            } else {
                for key in &touched {
                    conf.apply(key);
                }
            }
            self.store(vmid, &conf)?;
            let conf = self.load(vmid)?;
            self.update_lxc_config(vmid, &conf)
        })
    }

    fn check_wanted(&self, vmid: u32, caller: &Caller, wanted: &Wanted, conf: &Conf) -> Outcome {
        if let Some(digest) = &wanted.digest
            && *digest != crate::digest::sha1(self.text(vmid)?.as_bytes())
        {
            return Err(
                "detected modified configuration - file changed by other user? Try again.".into(),
            );
        }
        let old = &conf.current;
        for key in wanted.delete.iter().chain(&wanted.revert) {
            caller.check_key(vmid, key, None, old)?;
        }
        for (parameter, keys) in [("revert", &wanted.revert), ("delete", &wanted.delete)] {
            for key in keys {
                if value_of(key).is_none() {
                    let words = format!("unknown option '{key}'");
                    return Err(Died::parameter(parameter, words));
                }
                if wanted.values.contains_key(key) {
                    let words =
                        format!("you can't use '-{key}' and '-{parameter} {key}' at the same time");
                    return Err(Died::parameter(parameter, words));
                }
            }
        }
        let mut values = wanted.values.iter();
        values.try_for_each(|(key, value)| caller.check_key(vmid, key, Some(value), old))
    }

    /// Does to a running container what can be done, and leaves the rest pending.
    fn hotplug(&self, vmid: u32, conf: &mut Conf, touched: &[String]) -> Outcome {
        let mut errors = BTreeMap::new();
        for key in touched {
            let deleted = conf.delete.contains(key);
            let value = conf.pending.get(key).map(str::to_owned);
            if !deleted && !conf.pending.has(key) {
                continue;
            }
            let done = match (key.as_str(), deleted) {
                (key, _) if AT_ONCE.contains(&key) => Ok(true),
                ("memory", false) | ("swap", _) => self.hotplug_memory(vmid, conf).map(|()| true),
                ("cpulimit", _) => {
                    let quota = cpu_quota(value.as_deref());
                    let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                    self.limit(vmid, "cpu", &[("cpu.max", format!("{quota} 100000"))])
                }
                ("cpuunits", _) => {
                    let weight = value.unwrap_or_else(|| "100".to_owned());
                    self.limit(vmid, "cpu", &[("cpu.weight", weight)])
                }
                _ => Ok(false),
            };
            match done {
                Ok(true) => conf.apply(key),
                Ok(false) => {}
                Err(died) => {
                    let words = format!("unable to hotplug {key}: {died}");
                    errors.insert(key.clone(), words);
                }
            }
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Died::parameters(errors)),
        }
    }

    fn hotplug_memory(&self, vmid: u32, conf: &Conf) -> Outcome {
        let mut values = Vec::new();
        if let Some(swap) = conf.pending.number("swap") {
            values.push(("memory.swap.max", (swap << 20).to_string()));
        } else if conf.delete.iter().any(|key| key == "swap") {
            values.push(("memory.swap.max", "0".to_owned()));
        }
        if let Some(memory) = conf.pending.number("memory") {
            let (max, high) = memory_limits(memory);
            values.push(("memory.high", high.to_string()));
            values.push(("memory.max", max.to_string()));
        }
        self.limit(vmid, "memory", &values).map(drop)
    }

    fn limit(&self, vmid: u32, controller: &str, values: &[(&str, String)]) -> Outcome<bool> {
        let lxc_path = &self.house.options().lxc_path;
        let set = self.hierarchies.set(lxc_path, vmid, controller, values);
        set.map_err(|error| Died::new(error.to_string()))?;
        Ok(true)
    }
}

/// Notes what is wanted, and gives the keys that are touched.
fn ask_for(vmid: u32, wanted: &Wanted, conf: &mut Conf) -> Outcome<Vec<String>> {
    let protected = conf.current.is("protection");
    for key in &wanted.revert {
        conf.revert(key);
    }
    let mut touched = Vec::new();
    for key in &wanted.delete {
        if !conf.current.has(key) && !conf.pending.has(key) {
            eprintln!("cannot delete '{key}' - not set in current configuration!");
            continue;
        }
        match key.as_str() {
            "memory" | "rootfs" | "ostype" => {
                return Err(Died::new(format!(
                    "unable to delete required option '{key}'"
                )));
            }
            "unprivileged" => {
                return Err(Died::new(format!(
                    "unable to delete read-only option: '{key}'"
                )));
            }
            key if protected && (is_numbered(key, "mp") || is_numbered(key, "unused")) => {
                let words =
                    format!("can't remove CT {vmid} drive '{key}' - protection mode enabled");
                return Err(Died::new(words));
            }
            _ => {}
        }
        conf.request_deletion(key);
        touched.push(key.clone());
    }
    for (key, value) in &wanted.values {
        if key == "unprivileged" {
            return Err(Died::new(format!(
                "unable to modify read-only option: '{key}'"
            )));
        }
        if key == "rootfs" || is_numbered(key, "mp") {
            if protected {
                let words =
                    format!("can't update CT {vmid} drive '{key}' - protection mode enabled");
                return Err(Died::new(words));
            }
            refuse_new_disk(key, value)?;
        }
        conf.request(key, value);
        touched.push(key.clone());
    }
    Ok(touched)
}

/// `storage:8` asks for a new volume of that many GiB. The simulator makes none.
fn refuse_new_disk(key: &str, value: &str) -> Outcome {
    let volume = value.split(',').next().unwrap_or_default();
    let size = volume.split_once(':').map(|(_, size)| size.parse::<f64>());
    match size {
        Some(Ok(_)) => Err(Died::new(format!(
            "unable to create a new volume for '{key}'"
        ))),
        _ => Ok(()),
    }
}

fn is_numbered(key: &str, name: &str) -> bool {
    key.strip_prefix(name)
        .is_some_and(|number| number.parse::<u32>().is_ok())
}
