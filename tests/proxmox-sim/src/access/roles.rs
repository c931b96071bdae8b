//! Privileges and the roles that Proxmox brings, as in pve-access-control 9.1.1.

use std::collections::{BTreeMap, BTreeSet};

/// Privileges of one subject: those of root alone, administrators, users, auditors.
type Group = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

const GROUPS: [Group; 7] = [
    (
        "VM",
        &[],
        &[
            "VM.Config.Disk",
            "VM.Config.CPU",
            "VM.Config.Memory",
            "VM.Config.Network",
            "VM.Config.HWType",
            "VM.Config.Options",
            "VM.Allocate",
            "VM.Clone",
            "VM.GuestAgent.Unrestricted",
            "VM.Migrate",
            "VM.Replicate",
            "VM.Snapshot",
            "VM.Snapshot.Rollback",
        ],
        &[
            "VM.Config.CDROM",
            "VM.Config.Cloudinit",
            "VM.Console",
            "VM.Backup",
            "VM.GuestAgent.FileRead",
            "VM.GuestAgent.FileSystemMgmt",
            "VM.GuestAgent.FileWrite",
            "VM.PowerMgmt",
        ],
        &["VM.Audit", "VM.GuestAgent.Audit"],
    ),
    (
        "Sys",
        &[
            "Sys.PowerMgmt",
            "Sys.Modify",
            "Sys.Incoming",
            "Sys.AccessNetwork",
        ],
        &["Sys.Console", "Sys.Syslog"],
        &[],
        &["Sys.Audit"],
    ),
    (
        "Datastore",
        &[],
        &["Datastore.Allocate", "Datastore.AllocateTemplate"],
        &["Datastore.AllocateSpace"],
        &["Datastore.Audit"],
    ),
    (
        "SDN",
        &[],
        &["SDN.Allocate", "SDN.Audit"],
        &["SDN.Use"],
        &["SDN.Audit"],
    ),
    (
        "User",
        &["Realm.Allocate"],
        &["User.Modify", "Group.Allocate", "Realm.AllocateUser"],
        &[],
        &[],
    ),
    (
        "Pool",
        &[],
        &["Pool.Allocate"],
        &["Pool.Audit"],
        &["Pool.Audit"],
    ),
    (
        "Mapping",
        &[],
        &["Mapping.Modify"],
        &["Mapping.Use"],
        &["Mapping.Audit"],
    ),
];

/// Known to Proxmox, and in no group.
const OTHERS: [&str; 1] = ["Permissions.Modify"];

/// All privileges.
pub fn privileges() -> BTreeSet<&'static str> {
    let groups = GROUPS.iter();
    let grouped = groups.flat_map(|(_, root, admin, user, audit)| [root, admin, user, audit]);
    grouped
        .flat_map(|names| names.iter().copied())
        .chain(OTHERS)
        .collect()
}

/// Roles that are always there.
pub fn built_in() -> BTreeMap<String, BTreeSet<String>> {
    let mut roles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut give = |role: String, names: &[&str]| {
        let held = roles.entry(role).or_default();
        held.extend(names.iter().map(|name| (*name).to_owned()));
    };
    give("NoAccess".into(), &[]);
    let all: Vec<_> = privileges().into_iter().collect();
    give("Administrator".into(), &all);
    for (name, _, admin, user, audit) in GROUPS {
        for names in [admin, user, audit] {
            give(format!("PVE{name}Admin"), names);
            let names: Vec<_> = names
                .iter()
                .filter(|name| **name != "Mapping.Modify")
                .copied()
                .collect();
            give("PVEAdmin".into(), &names);
        }
        if !user.is_empty() {
            give(format!("PVE{name}User"), user);
            give(format!("PVE{name}User"), audit);
        }
        give("PVEAuditor".into(), audit);
    }
    give("PVETemplateUser".into(), &["VM.Clone", "VM.Audit"]);
    roles
}
