//! Proxmox VE on this node: its packages, its cluster file system, and whether pods can be its containers.

use std::time::Duration;

use nexcage_command::{Command, Program};
use nexcage_config::ProxmoxStart;
use nexcage_lxc::Features;
use nexcage_sandbox::SandboxBackend as _;

use super::finding::Finding;
use super::{Doctor, blocking};
use crate::error::Chain;
use crate::runtime::{ProxmoxNode, cgroup_tree, find_node, lxc_options};

/// Packages whose versions matter when somebody asks for help.
const PACKAGES: [&str; 4] = ["pve-manager", "pve-container", "pve-cluster", "lxc-pve"];

const DEADLINE: Duration = Duration::from_secs(10);

/// All about this node, if it is one.
pub(super) async fn proxmox(doctor: &Doctor) -> Vec<Finding> {
    let node = &doctor.proxmox;
    if !node.configured && !node.mounted {
        let reason = "not used: the configuration does not ask for it, and no cluster file system is mounted";
        return vec![Finding::ok("proxmox", reason)];
    }
    let of = node.clone();
    let quorate = blocking(move || of.quorate()).await.flatten();
    vec![
        judge_packages(&versions().await, &features().await, node.settings.start),
        judge_cluster(&Cluster { node, quorate }),
        pods(doctor).await,
    ]
}

/// Installed versions, by package.
async fn versions() -> Vec<(&'static str, Option<String>)> {
    let Ok(dpkg_query) = Program::find("dpkg-query", "dpkg") else {
        return Vec::new();
    };
    let mut versions = Vec::new();
    for package in PACKAGES {
        let command = Command::new(&dpkg_query, DEADLINE)
            .args(["-W", "--showformat", "${db:Status-Status} ${Version}"])
            .arg(package);
        let answer = command.run_any_status().await;
        let answer = answer
            .map(|output| output.stdout_text())
            .unwrap_or_default();
        let version = answer.trim().strip_prefix("installed ").map(str::to_owned);
        versions.push((package, version));
    }
    versions
}

async fn features() -> Result<Features, String> {
    let dpkg_query = Program::find("dpkg-query", "dpkg").map_err(|e| Chain(&e).to_string())?;
    let found = Features::detect(&dpkg_query).await;
    found.map_err(|e| Chain(&e).to_string())
}

fn judge_packages(
    versions: &[(&'static str, Option<String>)],
    features: &Result<Features, String>,
    start: ProxmoxStart,
) -> Finding {
    const CHECK: &str = "proxmox packages";
    let shown: Vec<String> = versions
        .iter()
        .filter_map(|(package, version)| Some(format!("{package} {}", version.as_ref()?)))
        .collect();
    let shown = shown.join(", ");
    let features = match features {
        Ok(features) => features,
        Err(error) => {
            let remedy =
                "install Proxmox VE 8 or newer, or take `proxmox` out of the configuration";
            return Finding::failed(CHECK, error.clone(), remedy);
        }
    };
    if !features.starts_unmanaged && start == ProxmoxStart::Api {
        return Finding::failed(
            CHECK,
            format!("{shown}: this pve-container cannot start containers of type unmanaged"),
            "upgrade it to 6.1.1 or newer, or set proxmox.start to direct",
        );
    }
    let idmap = match features.idmap {
        true => "with idmap= on root filesystems",
        false => "without idmap= on root filesystems, which is not needed",
    };
    Finding::ok(CHECK, format!("{shown}; {idmap}"))
}

/// What the cluster file system says.
struct Cluster<'a> {
    node: &'a ProxmoxNode,
    quorate: Option<bool>,
}

fn judge_cluster(found: &Cluster<'_>) -> Finding {
    const CHECK: &str = "proxmox cluster";
    let pve_dir = &found.node.settings.pve_dir;
    if !found.node.mounted {
        return Finding::failed(
            CHECK,
            format!("no cluster file system is mounted at {pve_dir}"),
            "systemctl start pve-cluster",
        );
    }
    let name = &found.node.name;
    match found.quorate {
        Some(true) => Finding::ok(
            CHECK,
            format!("{pve_dir} is mounted, this is {name}, and there is quorum"),
        ),
        Some(false) => Finding::failed(
            CHECK,
            format!(
                "the cluster of {name} has no quorum: no pod can be made or removed there, those there are go on"
            ),
            "bring the other nodes back; pvecm status shows them",
        ),
        None => Finding::failed(
            CHECK,
            format!("{pve_dir}/.members does not say whether there is quorum"),
            "systemctl restart pve-cluster",
        ),
    }
}

/// Whether the daemon could make one: what it asks itself for its condition `ProxmoxReady`.
async fn pods(doctor: &Doctor) -> Finding {
    const CHECK: &str = "proxmox pods";
    let config = &doctor.config;
    let backend = find_node(config)
        .map_err(|e| e.to_string())
        .and_then(|node| {
            let options = lxc_options(config, &doctor.paths).map_err(|e| Chain(&e).to_string())?;
            let backend = doctor.proxmox.backend(options, cgroup_tree(config, &node));
            backend.map_err(|e| Chain(&e).to_string())
        });
    let checked = match backend {
        Ok(backend) => backend.check().await.map_err(|e| Chain(&e).to_string()),
        Err(error) => Err(error),
    };
    match checked {
        Ok(()) => Finding::ok(CHECK, "they can be made"),
        // It says what to do.
        Err(error) => Finding::failed_by(CHECK, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    fn versions() -> Vec<(&'static str, Option<String>)> {
        vec![("pve-manager", Some("9.2.11".into())), ("lxc-pve", None)]
    }

    fn features(idmap: bool, starts_unmanaged: bool) -> Result<Features, String> {
        Ok(Features {
            idmap,
            starts_unmanaged,
        })
    }

    #[test]
    fn packages() {
        let judge = |features: &Result<Features, String>, start| {
            judge_packages(&versions(), features, start)
        };
        let good = judge(&features(true, true), ProxmoxStart::Api);
        assert_eq!(
            good.reason,
            "pve-manager 9.2.11; with idmap= on root filesystems"
        );
        assert_eq!(
            judge(&features(false, false), ProxmoxStart::Direct).state,
            State::Ok
        );
        assert_eq!(
            judge(&features(true, false), ProxmoxStart::Api).state,
            State::Failed
        );
        let none = judge(&Err("not installed".into()), ProxmoxStart::Direct);
        assert_eq!(
            (none.state, none.reason.as_str()),
            (State::Failed, "not installed")
        );
    }

    #[test]
    fn clusters() {
        let node = |mounted| ProxmoxNode {
            settings: nexcage_config::Proxmox::default(),
            name: "pve1".into(),
            mounted,
            configured: true,
        };
        let judge = |mounted, quorate| {
            judge_cluster(&Cluster {
                node: &node(mounted),
                quorate,
            })
        };
        assert_eq!(judge(true, Some(true)).state, State::Ok);
        assert!(judge(true, Some(false)).reason.contains("no quorum"));
        assert_eq!(judge(true, None).state, State::Failed);
        assert!(judge(false, None).remedy.unwrap().contains("pve-cluster"));
    }

    #[tokio::test]
    async fn a_machine_that_is_no_node_is_not_blamed() {
        let mut doctor = Doctor::of(nexcage_config::Config::default());
        doctor.proxmox.mounted = false;
        let findings = proxmox(&doctor).await;
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].state, State::Ok);
    }
}
