//! The daemon, and what it says of itself and of its pods.

use camino::Utf8Path;
use nexcage_cri_api::v1;
use serde::Deserialize;

use super::finding::Finding;
use crate::cli::client::{Client, request};
use crate::cli::error::CliError;
use crate::error::Chain;

const CHECK: &str = "daemon";

/// What an answering daemon said.
#[derive(Debug, Default)]
pub(super) struct Answer {
    version: String,
    conditions: Vec<v1::RuntimeCondition>,
    pub(super) pods: Vec<Pod>,
}

/// A pod that it has.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) id: String,
    name: String,
    info: Info,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Info {
    container: Option<String>,
    #[serde(default)]
    edits: Vec<Edit>,
}

#[derive(Debug, Clone, Deserialize)]
struct Edit {
    key: String,
    ours: Option<String>,
    theirs: Option<String>,
}

/// Asks it everything.
pub(super) async fn ask(socket: &Utf8Path) -> Result<Answer, CliError> {
    let mut client = Client::connect(socket).await?;
    let version = v1::VersionRequest {
        version: "0.1.0".to_owned(),
    };
    let version = client.runtime.version(request(version)).await;
    let version = version.map_err(CliError::rpc("the daemon does not say what it is"))?;
    let version = version.into_inner();
    let status = v1::StatusRequest { verbose: false };
    let status = client.runtime.status(request(status)).await;
    let status = status.map_err(CliError::rpc("the daemon does not say how it is"))?;
    Ok(Answer {
        version: format!("{} {}", version.runtime_name, version.runtime_version),
        conditions: status.into_inner().status.unwrap_or_default().conditions,
        pods: pods(&mut client).await?,
    })
}

async fn pods(client: &mut Client) -> Result<Vec<Pod>, CliError> {
    let list = v1::ListPodSandboxRequest { filter: None };
    let listed = client.runtime.list_pod_sandbox(request(list)).await;
    let listed = listed.map_err(CliError::rpc("cannot list pods"))?;
    let mut pods = Vec::new();
    for pod in listed.into_inner().items {
        let ask = v1::PodSandboxStatusRequest {
            pod_sandbox_id: pod.id.clone(),
            verbose: true,
        };
        // It may have been removed meanwhile.
        let answer = client.runtime.pod_sandbox_status(request(ask)).await;
        let info = answer.ok().and_then(|answer| {
            let text = answer.into_inner().info.remove("info")?;
            serde_json::from_str(&text).ok()
        });
        let metadata = pod.metadata.unwrap_or_default();
        pods.push(Pod {
            id: pod.id,
            name: format!("{}/{}", metadata.namespace, metadata.name),
            info: info.unwrap_or_default(),
        });
    }
    Ok(pods)
}

/// Whether it answers, and every condition that is not met.
pub(super) fn judge(answer: &Result<Answer, CliError>) -> Vec<Finding> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let reason = match error {
                CliError::NoDaemon { socket } => format!("nobody answers at {socket}"),
                error => Chain(error).to_string(),
            };
            let remedy = "systemctl start nexcage; journalctl -u nexcage says why it does not run";
            return vec![Finding::failed(CHECK, reason, remedy)];
        }
    };
    let unmet = answer
        .conditions
        .iter()
        .filter(|condition| !condition.status);
    let mut findings: Vec<Finding> = unmet
        .map(|condition| {
            let v1::RuntimeCondition {
                r#type,
                reason,
                message,
                ..
            } = condition;
            Finding::failed_by(CHECK, format!("{type} is not met: {reason}: {message}"))
        })
        .collect();
    if findings.is_empty() {
        let pods = answer.pods.len();
        let reason = format!("{} answers, is ready and has {pods} pods", answer.version);
        findings.push(Finding::ok(CHECK, reason));
    }
    findings
}

/// Pods whose containers somebody else has changed.
pub(super) fn judge_edits(answer: &Result<Answer, CliError>) -> Vec<Finding> {
    let pods = answer.as_ref().map(|answer| answer.pods.as_slice());
    let edited = pods
        .unwrap_or_default()
        .iter()
        .filter(|pod| !pod.info.edits.is_empty());
    edited.map(edited_pod).collect()
}

fn edited_pod(pod: &Pod) -> Finding {
    let container = pod.info.container.as_deref().unwrap_or("?");
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
    let edits = pod.info.edits.iter();
    let edits = edits.map(|edit| {
        format!(
            "{} is {} and was made {}",
            edit.key,
            shown(&edit.theirs),
            shown(&edit.ours)
        )
    });
    let edits: Vec<String> = edits.collect();
    Finding::warning(
        "edits",
        format!(
            "the container {container} of pod {}: {}",
            pod.name,
            edits.join(", ")
        ),
        "change it back, or change the pod itself; nexcage neither undoes nor heeds it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    fn condition(name: &str, status: bool) -> v1::RuntimeCondition {
        v1::RuntimeCondition {
            r#type: name.into(),
            status,
            reason: "NoQuorum".into(),
            message: "no quorum".into(),
        }
    }

    #[test]
    fn a_daemon_that_is_ready() {
        let answer = Answer {
            version: "nexcage 0.1.0".into(),
            conditions: vec![condition("RuntimeReady", true)],
            pods: Vec::new(),
        };
        let findings = judge(&Ok(answer));
        assert_eq!(
            findings[0].reason,
            "nexcage 0.1.0 answers, is ready and has 0 pods"
        );
    }

    #[test]
    fn conditions_that_are_not_met_are_told_one_by_one() {
        let answer = Answer {
            conditions: vec![
                condition("RuntimeReady", true),
                condition("ProxmoxReady", false),
            ],
            ..Answer::default()
        };
        let findings = judge(&Ok(answer));
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].reason,
            "ProxmoxReady is not met: NoQuorum: no quorum"
        );
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there() {
        let findings = judge(&ask(Utf8Path::new("/no/such.sock")).await);
        assert_eq!(findings[0].state, State::Failed);
        assert!(findings[0].reason.contains("/no/such.sock"));
    }

    #[test]
    fn edits_are_told_by_key() {
        let info = r#"{"container": "900012", "edits": [
            {"key": "memory", "ours": "512", "theirs": "1024"}, {"key": "onboot", "ours": null, "theirs": "1"}]}"#;
        let pod = |name: &str, info: Info| Pod {
            id: "a".into(),
            name: name.into(),
            info,
        };
        let answer = Answer {
            pods: vec![
                pod("default/web", serde_json::from_str(info).unwrap()),
                pod("default/db", Info::default()),
            ],
            ..Answer::default()
        };
        let findings = judge_edits(&Ok(answer));
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].reason,
            "the container 900012 of pod default/web: memory is 1024 and was made 512, onboot is 1 and was made not set"
        );
    }
}
