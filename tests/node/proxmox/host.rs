//! Pods with namespaces of the host, and a privileged one: containers of Proxmox all the same.

use std::fs;

use anyhow::{Context as _, ensure};
use camino::Utf8PathBuf;
use nexcage_tests::{Pod, process, spec, wait};
use serde_json::json;

use super::commands::{Listed, doctor_says, list_has};
use super::site::{Ct, MIB, Site, hold, is_near};
use crate::node::{PATIENCE, label_of};

/// What each container takes.
const TAKEN: u64 = 32 * MIB;

/// CRI's numbers of namespace modes.
const POD: u32 = 0;
const CONTAINER: u32 = 1;
const NODE: u32 = 2;

/// Whose namespace a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Host,
    /// Shared by all containers of the pod, and held by the first process of Proxmox's container.
    Pods,
    Own,
}

/// A kind of pod.
struct Kind {
    name: &'static str,
    network: u32,
    pid: u32,
    ipc: u32,
    privileged: bool,
    /// In which namespaces its container is to be.
    namespaces: [(&'static str, Whose); 5],
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "host-network",
        network: NODE,
        pid: CONTAINER,
        ipc: POD,
        privileged: false,
        namespaces: [
            ("net", Whose::Host),
            ("uts", Whose::Host),
            ("ipc", Whose::Pods),
            ("pid", Whose::Own),
            ("user", Whose::Host),
        ],
    },
    Kind {
        name: "host-pid-ipc",
        network: POD,
        pid: NODE,
        ipc: NODE,
        privileged: false,
        namespaces: [
            ("net", Whose::Pods),
            ("uts", Whose::Pods),
            ("ipc", Whose::Host),
            ("pid", Whose::Host),
            ("user", Whose::Host),
        ],
    },
    Kind {
        name: "privileged",
        network: POD,
        pid: CONTAINER,
        ipc: POD,
        privileged: true,
        namespaces: [
            ("net", Whose::Pods),
            ("uts", Whose::Pods),
            ("ipc", Whose::Pods),
            ("pid", Whose::Own),
            ("user", Whose::Host),
        ],
    },
];

/// A pod of a kind that runs.
struct Running {
    kind: &'static Kind,
    pod: Pod,
    container: String,
    /// The container's first process.
    pid: i32,
    ct: Ct,
}

/// They run as what they are, are seen, measured and stopped.
pub(super) fn pods_are_containers(site: &Site<'_>) -> anyhow::Result<()> {
    let pods: Vec<_> = KINDS
        .iter()
        .map(|kind| run(site, kind).with_context(|| kind.name))
        .collect::<Result<_, _>>()?;
    for pod in &pods {
        let checked = namespaces(pod).and_then(|()| rights(site, pod));
        checked.with_context(|| pod.kind.name)?;
    }
    are_shown(site, &pods)?;
    doctor_says(pods.len(), &[])?;
    can_be_stopped(site, &pods)
}

fn run(site: &Site<'_>, kind: &'static Kind) -> anyhow::Result<Running> {
    let security = json!({
        "namespace_options": { "network": kind.network, "pid": kind.pid, "ipc": kind.ipc },
        "privileged": kind.privileged,
        // RuntimeDefault, which a privileged container is given none of all the same.
        "seccomp": { "profile_type": 0 },
    });
    let pod = site.node.run_pod_with(kind.name, |config| {
        config["linux"]["security_context"] = security.clone();
        if kind.network == NODE {
            // kubelet gives no host name to such a pod.
            config["hostname"] = "".into();
        }
    })?;
    let mut config = spec::shell(kind.name, &hold(TAKEN));
    config["linux"]["security_context"] = security;
    let container = site.node.start(&pod, &config)?;
    Ok(Running {
        kind,
        pid: site.node.pid(&container)?,
        ct: site.ct(&pod)?,
        pod,
        container,
    })
}

fn namespaces(pod: &Running) -> anyhow::Result<()> {
    let link = |pid: &str, kind: &str| -> anyhow::Result<Utf8PathBuf> {
        let path = Utf8PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
        path.read_link_utf8()
            .with_context(|| format!("cannot read {path}"))
    };
    let (container, init) = (pod.pid.to_string(), pod.ct.init.to_string());
    for (kind, expected) in pod.kind.namespaces {
        let own = link(&container, kind)?;
        let whose = match own {
            own if own == link("self", kind)? => Whose::Host,
            own if own == link(&init, kind)? => Whose::Pods,
            _ => Whose::Own,
        };
        ensure!(
            whose == expected,
            "the {kind} namespace is {whose:?}, not {expected:?}"
        );
    }
    // Proxmox's container itself has as little as that of any pod.
    let confined = link(&init, "user")? != link("self", "user")?;
    ensure!(confined, "its shell is in the host's user namespace");
    let shared = link(&init, "net")? == link("self", "net")?;
    ensure!(
        shared == (pod.kind.network == NODE),
        "its shell has another network"
    );
    Ok(())
}

/// What the privileged one may, and the others may not.
fn rights(site: &Site<'_>, pod: &Running) -> anyhow::Result<()> {
    let privileged = pod.kind.privileged;
    let status = read(&format!("/proc/{}/status", pod.pid))?;
    let mine = read("/proc/self/status")?;
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    let effective = field(&status, "CapEff:").context("no capabilities")?;
    let all = field(&mine, "CapBnd:").context("no capabilities")?;
    ensure!(
        (effective == all) == privileged,
        "its capabilities are {effective}, all are {all}"
    );
    let seccomp = field(&status, "Seccomp:");
    let expected = if privileged { "0" } else { "2" };
    ensure!(
        seccomp.as_deref() == Some(expected),
        "its mode of seccomp is {seccomp:?}"
    );
    let init = label_of(pod.ct.init)?;
    ensure!(
        init == "lxc-container-nexcage (enforce)",
        "AppArmor has its LXC container as {init:?}"
    );
    let label = label_of(pod.pid)?;
    // Debian has a profile for crun that allows everything.
    let unconfined = label == "unconfined" || label.ends_with(" (unconfined)");
    ensure!(
        unconfined == privileged && (privileged || label == "nexcage-default (enforce)"),
        "AppArmor has it as {label:?}"
    );

    let command = "mkdir -p /mnt/own && mount -t tmpfs own /mnt/own";
    let mount = ["exec", "--sync", &pod.container, "sh", "-c", command];
    let mounted = site.node.crictl().try_run(&mount)?;
    ensure!((mounted.code == Some(0)) == privileged, "{mounted}");
    let table = read(&format!("/proc/{}/mountinfo", pod.pid))?;
    let found = table.contains(" /mnt/own ");
    ensure!(found == privileged, "its mounts are\n{table}");
    Ok(())
}

/// By Proxmox and by nexcage, with what they use.
fn are_shown(site: &Site<'_>, pods: &[Running]) -> anyhow::Result<()> {
    for pod in pods {
        let mut last = None;
        let shown = wait::until_true("Proxmox shows the memory", PATIENCE, || {
            let status = site.status(pod.ct.vmid)?;
            let near = is_near(status.memory_bytes, TAKEN);
            last = Some(status);
            Ok(near)
        });
        shown.with_context(|| format!("{}: {last:?}", pod.kind.name))?;
    }
    let running: Vec<_> = pods
        .iter()
        .map(|pod| (pod.ct.vmid, pod.kind.name))
        .collect();
    site.pct_lists(&running)?;
    let listed: Vec<_> = pods
        .iter()
        .map(|pod| Listed {
            name: pod.kind.name,
            ct: &pod.ct,
            memory: TAKEN,
            has_network: pod.kind.network == POD,
        })
        .collect();
    list_has(site, &listed)
}

/// And are over then, in whosever namespaces their processes are.
fn can_be_stopped(site: &Site<'_>, pods: &[Running]) -> anyhow::Result<()> {
    for pod in pods {
        site.proxmox.pct(&["stop", &pod.ct.vmid.to_string()])?;
    }
    for pod in pods {
        site.ends(&pod.pod, &pod.container)
            .with_context(|| pod.kind.name)?;
        ensure!(!process::runs(pod.pid), "{} goes on", pod.kind.name);
    }
    Ok(())
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}
