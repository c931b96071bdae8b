//! What pmxcfs reads out of paths: guests, nodes, what is private.

/// What kind of guest a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestType {
    /// A virtual machine, in `qemu-server/`.
    Qemu,
    /// A container, in `lxc/`.
    Lxc,
}

impl GuestType {
    /// As in `.vmlist`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }
}

/// A guest, as the path of its configuration tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its node.
    pub node: String,
    /// Its type.
    pub kind: GuestType,
}

/// `nodes/<node>/{lxc,qemu-server}/<vmid>.conf`, and nothing deeper.
pub fn guest_of(path: &str) -> Option<(u32, Guest)> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let ["nodes", node, dir, file] = parts[..] else {
        return None;
    };
    let kind = match dir {
        "lxc" => GuestType::Lxc,
        "qemu-server" => GuestType::Qemu,
        _ => return None,
    };
    let vmid = config_name(file)?;
    let node = is_node_name(node).then(|| node.to_owned())?;
    Some((vmid, Guest { node, kind }))
}

/// `<vmid>.conf`: no leading zero, and any number of 32 bits.
fn config_name(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".conf")?;
    let digits = !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| number.parse().ok())?
}

/// Letters, digits, inner hyphens.
pub fn is_node_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Below `priv/` or `nodes/<node>/priv/`: for root alone.
pub fn is_private(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match parts.next() {
        Some("priv") => true,
        Some("nodes") => parts.nth(1) == Some("priv"),
        _ => false,
    }
}

/// A lock of the cluster: a directory right below `priv/lock/`, or anything there.
pub fn is_lock(path: &str) -> bool {
    path.trim_start_matches('/')
        .strip_prefix("priv/lock/")
        .is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_told_by_paths() {
        let guest = |kind, node: &str| Guest {
            node: node.into(),
            kind,
        };
        let found = guest_of("nodes/pve1/lxc/100.conf");
        assert_eq!(found, Some((100, guest(GuestType::Lxc, "pve1"))));
        let found = guest_of("/nodes/pve-2/qemu-server/999999999.conf");
        assert_eq!(found, Some((999_999_999, guest(GuestType::Qemu, "pve-2"))));
        for path in [
            "nodes/pve1/lxc/0100.conf",
            "nodes/pve1/lxc/100.conf.tmp.1",
            "nodes/pve1/lxc/x.conf",
            "nodes/pve1/lxc/99999999999.conf",
            "nodes/pve1/openvz/100.conf",
            "nodes/-pve/lxc/100.conf",
            "lxc/100.conf",
            "nodes/pve1/lxc/100.conf/x",
        ] {
            assert_eq!(guest_of(path), None, "{path}");
        }
    }

    #[test]
    fn private_paths() {
        for path in [
            "priv",
            "/priv/token.cfg",
            "nodes/pve1/priv",
            "nodes/pve1/priv/x",
        ] {
            assert!(is_private(path), "{path}");
        }
        for path in ["private", "nodes/pve1/lxc/priv", "nodes/priv", "user.cfg"] {
            assert!(!is_private(path), "{path}");
        }
        assert!(is_lock("priv/lock/file-user_cfg") && !is_lock("priv/lock/"));
    }
}
