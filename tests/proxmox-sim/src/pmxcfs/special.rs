//! What is at the root of `/etc/pve` without being in the tree: links to the local node, and files that pmxcfs makes up.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::tree::Tree;

/// A cluster, or a node of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// This node.
    pub node: String,
    /// The cluster's name; `None` on a node of its own, which always has quorum.
    pub name: Option<String>,
    /// All nodes, this one too: name to address.
    pub nodes: BTreeMap<String, String>,
}

/// An entry of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// A link: to `nodes/<node>`, or to a directory there.
    Link(&'static str),
    /// A file.
    File(File),
}

/// A file that is made up when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Version,
    Members,
    VmList,
    Rrd,
    ClusterLog,
    Debug,
}

/// All of them. Inodes are 2 and up, in this order.
pub(super) const SPECIALS: [(&str, Special); 10] = [
    ("local", Special::Link("")),
    ("qemu-server", Special::Link("/qemu-server")),
    ("openvz", Special::Link("/openvz")),
    ("lxc", Special::Link("/lxc")),
    (".version", Special::File(File::Version)),
    (".members", Special::File(File::Members)),
    (".vmlist", Special::File(File::VmList)),
    (".rrd", Special::File(File::Rrd)),
    (".clusterlog", Special::File(File::ClusterLog)),
    (".debug", Special::File(File::Debug)),
];

const FIRST_INODE: u64 = 2;

/// The special entry of this inode.
pub(super) fn by_inode(inode: u64) -> Option<Special> {
    let index = usize::try_from(inode.checked_sub(FIRST_INODE)?).ok()?;
    SPECIALS.get(index).map(|(_, special)| *special)
}

/// The inode of this name in the root.
pub(super) fn by_name(name: &str) -> Option<u64> {
    let index = SPECIALS.iter().position(|(known, _)| *known == name)?;
    Some(FIRST_INODE + index as u64)
}

/// What a file holds now.
pub(super) fn contents(file: File, tree: &Tree, cluster: &Cluster, started: u64) -> String {
    let value = match file {
        File::Version => json!({
            "starttime": started, "clinfo": 1, "vmlist": tree.guests().1, "kvstore": {},
        }),
        File::Members => members(tree, cluster),
        File::VmList => guests(tree),
        File::ClusterLog => json!({"data": []}),
        File::Rrd => return String::new(),
        File::Debug => return "0\n".to_owned(),
    };
    format!("{value:#}\n")
}

fn members(tree: &Tree, cluster: &Cluster) -> Value {
    let Some(name) = &cluster.name else {
        return json!({"nodename": cluster.node, "version": 1});
    };
    let node = |(number, (name, ip)): (usize, (&String, &String))| {
        let online = tree.quorate() || *name == cluster.node;
        let entry = json!({"id": number + 1, "online": u8::from(online), "ip": ip});
        (name.clone(), entry)
    };
    let nodes: Map<String, Value> = cluster.nodes.iter().enumerate().map(node).collect();
    json!({
        "nodename": cluster.node,
        "version": 1,
        "cluster": {"name": name, "version": 1, "nodes": nodes.len(), "quorate": u8::from(tree.quorate())},
        "nodelist": nodes,
    })
}

fn guests(tree: &Tree) -> Value {
    let (guests, version) = tree.guests();
    let entry = |(vmid, (guest, version)): (&u32, &(super::Guest, u64))| {
        let entry = json!({"node": guest.node, "type": guest.kind.name(), "version": version});
        (vmid.to_string(), entry)
    };
    let ids: Map<String, Value> = guests.iter().map(entry).collect();
    match ids.is_empty() {
        true => json!({"version": version}),
        false => json!({"version": version, "ids": ids}),
    }
}
