//! Proxmox's API, and what the token may do there.

use nexcage_config::ProxmoxStart;
use nexcage_lxc::{ClusterStatus, Permissions, Pve, PveError};

use super::Doctor;
use super::finding::Finding;
use crate::error::Chain;

const CHECK: &str = "proxmox api";

/// Where the documentation has the commands for a token.
const HOW_TO: &str = "see \"API token\" in docs/proxmox.md";

/// What the API said.
#[derive(Debug)]
struct Answers {
    version: Result<String, PveError>,
    permissions: Result<Permissions, PveError>,
    cluster: Result<ClusterStatus, PveError>,
}

/// Nothing where this is no node of Proxmox.
pub(super) async fn api(doctor: &Doctor) -> Vec<Finding> {
    let node = &doctor.proxmox;
    if !node.configured && !node.mounted {
        return Vec::new();
    }
    let api = match node.api() {
        Ok(Some(api)) => api,
        Ok(None) => {
            let reason = "not used: proxmox.start is direct, and there is no proxmox.token_file";
            return vec![Finding::ok(CHECK, reason)];
        }
        Err(error) => return vec![refused(node.settings.start, &error)],
    };
    let answers = ask(api.as_ref()).await;
    let vmids = &node.settings.vmids;
    vec![judge(
        node.settings.start,
        [vmids.first, vmids.last],
        &answers,
    )]
}

async fn ask(api: &dyn Pve) -> Answers {
    Answers {
        version: api.version().await,
        permissions: api.permissions().await,
        cluster: api.cluster().await,
    }
}

fn judge(start: ProxmoxStart, vmids: [u32; 2], answers: &Answers) -> Finding {
    let version = match &answers.version {
        Ok(version) => version,
        Err(error) => return refused(start, error),
    };
    let permissions = match &answers.permissions {
        Ok(permissions) => permissions,
        Err(error) => return refused(start, error),
    };
    let missing = missing(start, vmids, permissions);
    if !missing.is_empty() {
        let reason = format!(
            "pve-manager {version}; the token lacks {}",
            missing.join(", ")
        );
        let start = match missing.iter().any(|missing| missing.contains("/vms/")) {
            true => start,
            // Pods can be made without it; it is the cluster that cannot be seen.
            false => ProxmoxStart::Direct,
        };
        return finding(
            start,
            reason,
            format!("give it a role with these; {HOW_TO}"),
        );
    }
    match &answers.cluster {
        Ok(ClusterStatus { quorate: false, .. }) => finding(
            start,
            format!("pve-manager {version}; the cluster has no quorum"),
            "bring the other nodes back; pvecm status shows them".to_owned(),
        ),
        Ok(cluster) => {
            let nodes = cluster.nodes.len();
            Finding::ok(
                CHECK,
                format!("pve-manager {version}; the token is good, and sees {nodes} nodes"),
            )
        }
        Err(error) => refused(start, error),
    }
}

/// Privileges that the token needs and does not have, with their paths.
fn missing(start: ProxmoxStart, vmids: [u32; 2], permissions: &Permissions) -> Vec<String> {
    let containers: &[&str] = match start {
        ProxmoxStart::Api => &["VM.PowerMgmt", "VM.Audit"],
        ProxmoxStart::Direct => &["VM.Audit"],
    };
    let mut missing = Vec::new();
    for privilege in containers {
        // Somebody may have taken it away for single numbers; the ends of the range are looked at.
        let lacks = |vmid: &u32| !permissions.has(&format!("/vms/{vmid}"), privilege);
        if let Some(vmid) = vmids.iter().find(|vmid| lacks(vmid)) {
            missing.push(format!("{privilege} on /vms/{vmid}"));
        }
    }
    if !permissions.has("/", "Sys.Audit") {
        missing.push("Sys.Audit on /".to_owned());
    }
    missing
}

fn refused(start: ProxmoxStart, error: &PveError) -> Finding {
    let remedy = match error {
        PveError::Unauthorized { .. } | PveError::Forbidden { .. } | PveError::Setup { .. } => {
            HOW_TO
        }
        PveError::NoQuorum { .. } => "bring the other nodes back; pvecm status shows them",
        _ => {
            "systemctl status pveproxy pvedaemon; proxmox.api_url and proxmox.ca_file have to be this node's"
        }
    };
    finding(start, Chain(error).to_string(), remedy.to_owned())
}

/// Pods that nexcage starts itself need no API.
fn finding(start: ProxmoxStart, reason: String, remedy: String) -> Finding {
    match start {
        ProxmoxStart::Api => Finding::failed(CHECK, reason, remedy),
        ProxmoxStart::Direct => Finding::warning(CHECK, reason, remedy),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::doctor::finding::State;

    fn permissions(held: &[(&str, &[&str])]) -> Permissions {
        let path = |(path, names): &(&str, &[&str])| {
            let names = names.iter().map(|name| ((*name).to_owned(), true));
            ((*path).to_owned(), names.collect::<BTreeMap<_, _>>())
        };
        Permissions(held.iter().map(path).collect())
    }

    fn answers(held: &[(&str, &[&str])], quorate: bool) -> Answers {
        Answers {
            version: Ok("9.2.11".into()),
            permissions: Ok(permissions(held)),
            cluster: Ok(ClusterStatus {
                name: Some("lab".into()),
                quorate,
                nodes: [("pve1".to_owned(), true), ("pve2".to_owned(), true)].into(),
            }),
        }
    }

    fn judged(start: ProxmoxStart, answers: &Answers) -> Finding {
        judge(start, [900_000, 900_009], answers)
    }

    const ALL: &[(&str, &[&str])] = &[
        ("/", &["Sys.Audit"]),
        ("/vms", &["VM.Audit", "VM.PowerMgmt"]),
    ];

    #[test]
    fn a_good_token() {
        let good = judged(ProxmoxStart::Api, &answers(ALL, true));
        assert_eq!(
            good.reason,
            "pve-manager 9.2.11; the token is good, and sees 2 nodes"
        );
        assert_eq!(
            judged(ProxmoxStart::Api, &answers(ALL, false)).state,
            State::Failed
        );
    }

    #[test]
    fn missing_privileges_are_named() {
        let none = judged(ProxmoxStart::Api, &answers(&[], true));
        for name in [
            "VM.PowerMgmt on /vms/900000",
            "VM.Audit on /vms/900000",
            "Sys.Audit on /",
        ] {
            assert!(none.reason.contains(name), "{none:?}");
        }
        let some: &[(&str, &[&str])] = &[
            ("/", &["Sys.Audit"]),
            ("/vms", &["VM.Audit", "VM.PowerMgmt"]),
            ("/vms/900009", &["VM.Audit"]),
        ];
        let taken = judged(ProxmoxStart::Api, &answers(some, true));
        assert!(
            taken
                .reason
                .ends_with("the token lacks VM.PowerMgmt on /vms/900009"),
            "{taken:?}"
        );
        assert_eq!(
            judged(ProxmoxStart::Direct, &answers(some, true)).state,
            State::Ok
        );
        let vms: &[(&str, &[&str])] = &[("/vms", &["VM.Audit", "VM.PowerMgmt"])];
        let blind = judged(ProxmoxStart::Api, &answers(vms, true));
        assert_eq!(blind.state, State::Warning, "{blind:?}");
        let audit = judged(ProxmoxStart::Direct, &answers(&[], true));
        assert_eq!(audit.state, State::Warning);
        assert!(!audit.reason.contains("PowerMgmt"), "{audit:?}");
    }

    #[test]
    fn an_api_that_is_away_stops_only_those_who_need_it() {
        let away = || PveError::Unreachable {
            url: "https://127.0.0.1:8006".into(),
            doing: "ask for its version".into(),
            source: "connection refused".into(),
        };
        assert_eq!(refused(ProxmoxStart::Api, &away()).state, State::Failed);
        let direct = refused(ProxmoxStart::Direct, &away());
        assert_eq!(direct.state, State::Warning);
        assert!(direct.reason.contains("connection refused"));
        let wrong = PveError::Unauthorized {
            message: "no such token".into(),
        };
        assert!(
            refused(ProxmoxStart::Api, &wrong)
                .remedy
                .unwrap()
                .contains("API token")
        );
    }
}
