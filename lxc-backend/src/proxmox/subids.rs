//! Which ids LXC may map when Proxmox starts it.
//!
//! Where the package uidmap is installed, LXC leaves mapping to its programs, and they map only what `/etc/subuid` and `/etc/subgid` give
//! to root (subuid(5)). A container that nexcage starts does without, see the `PATH` of lxc-start.

use std::io;

use nexcage_command::Program;
use nexcage_sandbox::IdMapping;

/// Whether a container with these mappings can be started by Proxmox. Blocks.
///
/// # Errors
///
/// The reason, with what to do about it.
pub fn check(uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), String> {
    if Program::find("newuidmap", "uidmap").is_err() {
        return Ok(());
    }
    for (path, mappings) in [("/etc/subuid", uids), ("/etc/subgid", gids)] {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(format!("{path} cannot be read: {e}")),
        };
        for m in mappings {
            if !gives_root(&text, m.host_id, m.length) {
                return Err(format!(
                    "started by Proxmox, LXC may map only ids that {path} gives to root; add a line: root:{}:{}",
                    m.host_id, m.length
                ));
            }
        }
    }
    Ok(())
}

/// Whether root has all of these ids, in one range or in several that touch.
fn gives_root(text: &str, first: u32, count: u32) -> bool {
    let ranges: Vec<(u64, u64)> = text.lines().filter_map(range_of_root).collect();
    let (mut next, end) = (u64::from(first), u64::from(first) + u64::from(count));
    while next < end {
        let further = ranges
            .iter()
            .filter(|(begin, end)| (*begin..*end).contains(&next));
        match further.map(|(_, end)| *end).max() {
            Some(end) => next = end,
            None => return false,
        }
    }
    true
}

/// First id of a line of root's, and the first behind it.
fn range_of_root(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.trim().split(':');
    let owner = fields.next()?;
    let (first, count) = (
        fields.next()?.parse::<u64>().ok()?,
        fields.next()?.parse::<u64>().ok()?,
    );
    matches!(owner, "root" | "0").then(|| (first, first.saturating_add(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_roots_may_be_mapped() {
        let text = "kubelet:65536:7208960\nroot:100000:65536\n0:165536:65536\nroot:x:1\nroot:1\n";
        assert!(gives_root(text, 100_000, 65_536));
        assert!(gives_root(text, 100_000, 131_072));
        assert!(!gives_root(text, 100_000, 131_073));
        assert!(!gives_root(text, 99_999, 2));
        assert!(!gives_root(text, 65_536, 65_536));
        assert!(!gives_root("", 0, 1));
        assert!(!gives_root(text, u32::MAX, 2));
    }
}
