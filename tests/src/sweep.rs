//! Removing a machine, or what is left of one whose test was killed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use crate::{leak, process, wait};

/// Where machines have directories: what survives a reboot, and what does not.
const PARENTS: [&str; 2] = ["/var/lib", "/run"];

/// Makes the directory of a machine and takes its lock.
pub(crate) fn own(root: &Utf8Path) -> anyhow::Result<File> {
    // Under another name until it is locked, so that nobody can take it for abandoned.
    let draft = Utf8PathBuf::from(format!("{root}.new"));
    fs::create_dir(&draft).with_context(|| format!("cannot make {draft}"))?;
    let lock = File::create(draft.join("lock")).context("cannot make the lock")?;
    lock.lock().context("cannot take the lock")?;
    fs::rename(&draft, root).with_context(|| format!("cannot rename {draft} to {root}"))?;
    Ok(lock)
}

/// Removes all machines that have no owner.
pub(crate) fn abandoned() -> anyhow::Result<()> {
    let mut names = BTreeSet::new();
    for parent in PARENTS {
        for entry in fs::read_dir(parent).with_context(|| format!("cannot read {parent}"))? {
            let name = entry
                .with_context(|| format!("cannot read {parent}"))?
                .file_name();
            names.extend(
                name.to_str()
                    .filter(|name| is_machine(name))
                    .map(str::to_owned),
            );
        }
    }
    for name in names {
        let lock = File::open(format!("/var/lib/{name}/lock"));
        // Without a lock file there is no owner: it is made first and removed last.
        if lock.is_ok_and(|lock| lock.try_lock().is_err()) {
            continue;
        }
        eprintln!("removing {name}, which a test has left behind");
        sweep(&name)?;
    }
    Ok(())
}

fn is_machine(name: &str) -> bool {
    let digits = name.strip_prefix("nxt").unwrap_or_default();
    digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Removes everything that carries the name of a machine.
pub(crate) fn sweep(name: &str) -> anyhow::Result<()> {
    let dirs = PARENTS.map(|parent| Utf8PathBuf::from(parent).join(name));
    let ids = leak::ids_below(&dirs);

    wait::until_true("all processes of the test are gone", 20, || {
        let left = process::find(|command, root| command.contains(name) || root.contains(name));
        left.iter().for_each(|process| process::kill(process.pid));
        Ok(left.is_empty())
    })?;
    // The newest first: mounts may lie upon each other.
    for mount in leak::mounts(name).iter().rev() {
        rustix::mount::unmount(mount.as_str(), rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {mount}"))?;
    }
    if Path::new("/sys/class/net").join(name).exists() {
        process::run("ip", &["link", "delete", name], 10)?.success()?;
    }
    remove_firewall_rules(name)?;
    // The deepest first.
    for cgroup in leak::cgroups(name, &ids).iter().rev() {
        fs::remove_dir(cgroup).with_context(|| format!("cannot remove {cgroup}"))?;
    }
    for dir in dirs.iter().rev().filter(|dir| dir.exists()) {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {dir}"))?;
    }
    Ok(())
}

/// Removes the rules in chains that all containers share, and then the chains of single containers.
fn remove_firewall_rules(name: &str) -> anyhow::Result<()> {
    let mut chains = BTreeSet::new();
    for (table, rule) in leak::firewall_rules(name)? {
        let (chain, target) = (rule.first(), jump_target(&rule));
        let own = [chain.map(String::as_str), target]
            .into_iter()
            .flatten()
            .filter(|c| is_own(c));
        chains.extend(own.map(|chain| (table.clone(), chain.to_owned())));
        if chain.is_none_or(|chain| is_own(chain)) {
            continue;
        }
        let mut arguments = vec!["--wait", "-t", &table, "-D"];
        arguments.extend(rule.iter().map(String::as_str));
        process::run("iptables", &arguments, 30)?.success()?;
    }
    for (table, chain) in &chains {
        for action in ["-F", "-X"] {
            process::run("iptables", &["--wait", "-t", table, action, chain], 30)?.success()?;
        }
    }
    Ok(())
}

fn jump_target(rule: &[String]) -> Option<&str> {
    let jump = rule.iter().position(|word| word == "-j")?;
    rule.get(jump + 1).map(String::as_str)
}

/// Whether CNI made this chain for a single container.
fn is_own(chain: &str) -> bool {
    let shared = ["CNI-HOSTPORT", "CNI-FORWARD", "CNI-ADMIN", "CNI-ISOLATION"];
    chain.starts_with("CNI-") && !shared.iter().any(|name| chain.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_machines_are_taken_for_machines() {
        assert!(is_machine("nxt0a1b2c"));
        for other in [
            "nxt",
            "nxt0a1b2",
            "nxt0a1b2c3",
            "nxtzzzzzz",
            "nexcage",
            "nxt0a1b2c.new",
        ] {
            assert!(!is_machine(other), "{other}");
        }
    }

    #[test]
    fn shared_chains_are_kept() {
        assert!(is_own("CNI-0123456789abcdef") && is_own("CNI-DN-0123456789abc"));
        for shared in ["CNI-HOSTPORT-MASQ", "CNI-FORWARD", "ACCEPT", "POSTROUTING"] {
            assert!(!is_own(shared), "{shared}");
        }
        let rule = ["POSTROUTING", "-j", "CNI-00"].map(str::to_owned);
        assert_eq!(jump_target(&rule), Some("CNI-00"));
    }
}
