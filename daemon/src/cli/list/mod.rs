//! `nexcage list`.

mod runtime;

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use futures_util::StreamExt as _;
use nexcage_cri_api::v1;
use serde::Serialize;

use crate::cli::args::{Format, ListArgs};
use crate::cli::client::{Client, request};
use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::output::{print, print_json};
use crate::cli::resolve::Inventory;
use crate::cli::table::Table;

/// How many pods are asked for their addresses at once.
const AT_ONCE: usize = 16;

/// A pod as `--output json` prints it.
#[derive(Debug, Serialize)]
struct Pod {
    id: String,
    name: String,
    namespace: String,
    uid: String,
    attempt: u32,
    /// `ready` or `not_ready`.
    state: &'static str,
    /// By RFC 3339.
    created_at: Option<String>,
    runtime_handler: String,
    /// Empty with the host's network.
    ips: Vec<String>,
    labels: BTreeMap<String, String>,
    /// Newest first.
    containers: Vec<Container>,
    #[serde(skip)]
    created: i64,
}

/// A container as `--output json` prints it.
#[derive(Debug, Serialize)]
struct Container {
    id: String,
    name: String,
    attempt: u32,
    /// As it was asked for.
    image: String,
    image_id: String,
    /// `created`, `running`, `exited` or `unknown`.
    state: &'static str,
    /// By RFC 3339.
    created_at: Option<String>,
    #[serde(skip)]
    created: i64,
}

/// Prints pods with their containers.
pub(in crate::cli) async fn run(mut client: Client, args: ListArgs) -> Result<ExitCode, CliError> {
    if let Some(kind) = args.runtime {
        runtime::run(&mut client, &args, kind).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let inventory = Inventory::fetch(&mut client).await?;
    let mut pods = pods(inventory, args.all);
    let ids: Vec<String> = pods.iter().map(|pod| pod.id.clone()).collect();
    let mut ips = addresses(&client, ids).await?;
    for pod in &mut pods {
        pod.ips = ips.remove(&pod.id).unwrap_or_default();
    }
    match args.output.output {
        Format::Json => print_json(&pods)?,
        Format::Table => print(&table(&pods, human::now(), args.no_trunc))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The pods to show, newest first; without `all`, what lives.
fn pods(inventory: Inventory, all: bool) -> Vec<Pod> {
    let mut containers: HashMap<String, Vec<Container>> = HashMap::new();
    for item in inventory.containers {
        if all || item.state() != v1::ContainerState::ContainerExited {
            let pod = item.pod_sandbox_id.clone();
            containers.entry(pod).or_default().push(container(item));
        }
    }
    let mut pods: Vec<Pod> = inventory
        .pods
        .into_iter()
        .filter(|pod| all || pod.state() == v1::PodSandboxState::SandboxReady)
        .map(|item| {
            let mut containers = containers.remove(&item.id).unwrap_or_default();
            containers.sort_by_key(|c| std::cmp::Reverse(c.created));
            pod(item, containers)
        })
        .collect();
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.created));
    pods
}

fn pod(item: v1::PodSandbox, containers: Vec<Container>) -> Pod {
    let state = state_name(&item);
    let metadata = item.metadata.unwrap_or_default();
    Pod {
        id: item.id,
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        state,
        created_at: human::timestamp(item.created_at),
        runtime_handler: item.runtime_handler,
        ips: Vec::new(),
        labels: item.labels.into_iter().collect(),
        containers,
        created: item.created_at,
    }
}

fn state_name(pod: &v1::PodSandbox) -> &'static str {
    match pod.state() {
        v1::PodSandboxState::SandboxReady => "ready",
        v1::PodSandboxState::SandboxNotready => "not_ready",
    }
}

fn container(item: v1::Container) -> Container {
    let state = match item.state() {
        v1::ContainerState::ContainerCreated => "created",
        v1::ContainerState::ContainerRunning => "running",
        v1::ContainerState::ContainerExited => "exited",
        v1::ContainerState::ContainerUnknown => "unknown",
    };
    let metadata = item.metadata.unwrap_or_default();
    let spec = item.image.unwrap_or_default();
    Container {
        id: item.id,
        name: metadata.name,
        attempt: metadata.attempt,
        // kubelet passes an id, and the name that people wrote beside it.
        image: if spec.user_specified_image.is_empty() {
            spec.image
        } else {
            spec.user_specified_image
        },
        image_id: if item.image_id.is_empty() {
            item.image_ref
        } else {
            item.image_id
        },
        state,
        created_at: human::timestamp(item.created_at),
        created: item.created_at,
    }
}

/// The addresses of each pod; a pod that is removed meanwhile has none.
async fn addresses(
    client: &Client,
    ids: Vec<String>,
) -> Result<HashMap<String, Vec<String>>, CliError> {
    let one = |id: String| {
        let mut client = client.clone();
        async move {
            let message = v1::PodSandboxStatusRequest {
                pod_sandbox_id: id.clone(),
                verbose: false,
            };
            match client.runtime.pod_sandbox_status(request(message)).await {
                Ok(answer) => Ok((id, ips(answer.into_inner()))),
                Err(status) if status.code() == tonic::Code::NotFound => Ok((id, Vec::new())),
                Err(status) => Err(CliError::rpc(format!("cannot look at pod {id}"))(status)),
            }
        }
    };
    let answers = futures_util::stream::iter(ids)
        .map(one)
        .buffer_unordered(AT_ONCE);
    answers.collect::<Vec<_>>().await.into_iter().collect()
}

fn ips(answer: v1::PodSandboxStatusResponse) -> Vec<String> {
    let network = answer
        .status
        .and_then(|status| status.network)
        .unwrap_or_default();
    std::iter::once(network.ip)
        .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
        .filter(|ip| !ip.is_empty())
        .collect()
}

/// One row per container; a pod without containers has one of its own.
fn table(pods: &[Pod], now: i64, no_trunc: bool) -> String {
    let mut table = Table::new(&[
        "POD",
        "NAMESPACE",
        "STATE",
        "CONTAINER",
        "IMAGE",
        "STATE",
        "AGE",
        "IP",
    ]);
    for pod in pods {
        let mut row = |name: &str, image: String, state: &str, created: i64| {
            table.row([
                pod.name.clone(),
                pod.namespace.clone(),
                pod.state.replace('_', " "),
                name.to_owned(),
                image,
                state.to_owned(),
                human::age(created, now),
                pod.ips.join(","),
            ]);
        };
        for c in &pod.containers {
            let image = if no_trunc {
                c.image.clone()
            } else {
                human::short_image(&c.image)
            };
            row(&c.name, image, c.state, c.created);
        }
        if pod.containers.is_empty() {
            row("", String::new(), "", pod.created);
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const NOW: i64 = 1_700_000_000 * SECOND;

    fn inventory() -> Inventory {
        let pod = |id: &str, name: &str, state: v1::PodSandboxState, age: i64| v1::PodSandbox {
            id: id.into(),
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-of-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            state: state.into(),
            created_at: NOW - age * SECOND,
            labels: HashMap::from([("app".into(), name.into())]),
            ..Default::default()
        };
        let container =
            |id: &str, pod: &str, name: &str, state: v1::ContainerState| v1::Container {
                id: id.into(),
                pod_sandbox_id: pod.into(),
                metadata: Some(v1::ContainerMetadata {
                    name: name.into(),
                    attempt: 0,
                }),
                image: Some(v1::ImageSpec {
                    image: format!("sha256:{}", "9".repeat(64)),
                    user_specified_image: if name == "nginx" {
                        "docker.io/library/nginx:1".into()
                    } else {
                        String::new()
                    },
                    ..Default::default()
                }),
                image_ref: format!("sha256:{}", "9".repeat(64)),
                state: state.into(),
                created_at: NOW - 90 * SECOND,
                ..Default::default()
            };
        use v1::ContainerState::{ContainerExited, ContainerRunning};
        use v1::PodSandboxState::{SandboxNotready, SandboxReady};
        Inventory {
            pods: vec![
                pod("a1", "old", SandboxNotready, 7200),
                pod("a2", "web", SandboxReady, 100),
                pod("a3", "empty", SandboxReady, 5),
            ],
            containers: vec![
                container("c1", "a1", "job", ContainerExited),
                container("c2", "a2", "nginx", ContainerRunning),
                container("c3", "a2", "setup", ContainerExited),
            ],
        }
    }

    #[test]
    fn what_lives_is_shown() {
        let mut pods = pods(inventory(), false);
        pods[1].ips = vec!["10.88.0.7".into(), "fd00::7".into()];
        insta::assert_snapshot!(table(&pods, NOW, false), @r"
        POD     NAMESPACE   STATE   CONTAINER   IMAGE                       STATE     AGE   IP
        empty   default     ready   -           -                           -         5s    -
        web     default     ready   nginx       docker.io/library/nginx:1   running   1m    10.88.0.7,fd00::7
        ");
    }

    #[test]
    fn all_is_shown_when_asked_for() {
        insta::assert_snapshot!(table(&pods(inventory(), true), NOW, false), @r"
        POD     NAMESPACE   STATE       CONTAINER   IMAGE                       STATE     AGE   IP
        empty   default     ready       -           -                           -         5s    -
        web     default     ready       nginx       docker.io/library/nginx:1   running   1m    -
        web     default     ready       setup       999999999999                exited    1m    -
        old     default     not ready   job         999999999999                exited    1m    -
        ");
        let whole = table(&pods(inventory(), true), NOW, true);
        assert!(whole.contains(&"9".repeat(64)), "{whole}");
    }

    #[test]
    fn programs_get_json() {
        insta::assert_json_snapshot!(&pods(inventory(), true)[2], @r#"
        {
          "id": "a1",
          "name": "old",
          "namespace": "default",
          "uid": "uid-of-old",
          "attempt": 0,
          "state": "not_ready",
          "created_at": "2023-11-14T20:13:20Z",
          "runtime_handler": "",
          "ips": [],
          "labels": {
            "app": "old"
          },
          "containers": [
            {
              "id": "c1",
              "name": "job",
              "attempt": 0,
              "image": "sha256:9999999999999999999999999999999999999999999999999999999999999999",
              "image_id": "sha256:9999999999999999999999999999999999999999999999999999999999999999",
              "state": "exited",
              "created_at": "2023-11-14T22:11:50Z"
            }
          ]
        }
        "#);
    }
}
