//! `nexcage delete`.

use std::process::ExitCode;
use std::time::Duration;

use nexcage_cri_api::v1;
use serde::Serialize;

use super::args::{DeleteArgs, Format};
use super::client::{Client, request, request_within};
use super::error::CliError;
use super::output::{print, print_json};
use super::resolve::{Inventory, Target};
use crate::error::Chain;

/// What stopping takes at most beyond the time that the container gets.
const STOP_EXTRA: Duration = Duration::from_secs(60);

/// What became of one target, as `--output json` prints it.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    deleted: bool,
    error: Option<String>,
}

/// Removes pods and containers; tells each that was removed, and each that was not.
pub(super) async fn run(mut client: Client, args: DeleteArgs) -> Result<ExitCode, CliError> {
    let as_json = args.output.output == Format::Json;
    let mut outcomes = Vec::new();
    for name in args.targets.iter().chain(&args.name) {
        let deleted = delete(&mut client, name, &args).await;
        match &deleted {
            Ok(()) if !as_json => print(&format!("{name}\n"))?,
            Err(error) if !as_json => drop(error.report()),
            _ => {}
        }
        outcomes.push(Outcome {
            name: name.clone(),
            deleted: deleted.is_ok(),
            error: deleted.err().map(|error| Chain(&error).to_string()),
        });
    }
    if as_json {
        print_json(&outcomes)?;
    }
    match outcomes.iter().all(|outcome| outcome.deleted) {
        true => Ok(ExitCode::SUCCESS),
        false => Err(CliError::Told),
    }
}

async fn delete(client: &mut Client, name: &str, args: &DeleteArgs) -> Result<(), CliError> {
    // Anew for each, because removing a pod removes containers that may be among the others.
    let inventory = Inventory::fetch(client).await?;
    let grace = args.force.then(|| Duration::from_secs(args.timeout.into()));
    match inventory.target(name)? {
        Target::Container(container) => {
            let running = is_running(container);
            match grace {
                Some(grace) if running => stop_container(client, &container.id, grace).await?,
                None if running => return Err(still_running("container", name)),
                _ => {}
            }
            remove_container(client, &container.id).await
        }
        Target::Pod(pod) => {
            let containers = inventory.containers.iter();
            let running: Vec<&str> = containers
                .filter(|c| c.pod_sandbox_id == pod.id && is_running(c))
                .map(|c| c.id.as_str())
                .collect();
            let ready = pod.state() == v1::PodSandboxState::SandboxReady;
            if let Some(grace) = grace {
                for container in running {
                    stop_container(client, container, grace).await?;
                }
            } else if ready || !running.is_empty() {
                return Err(still_running("pod", name));
            }
            remove_pod(client, &pod.id).await
        }
    }
}

fn is_running(container: &v1::Container) -> bool {
    container.state() == v1::ContainerState::ContainerRunning
}

fn still_running(kind: &str, name: &str) -> CliError {
    CliError::State(format!(
        "cannot delete {name}: the {kind} is running; --force stops it first"
    ))
}

/// Ends a container: by its stop signal, and after `grace` by SIGKILL.
pub(super) async fn stop_container(
    client: &mut Client,
    id: &str,
    grace: Duration,
) -> Result<(), CliError> {
    let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    let message = v1::StopContainerRequest {
        container_id: id.to_owned(),
        timeout,
    };
    let answer = client
        .runtime
        .stop_container(request_within(message, grace + STOP_EXTRA))
        .await;
    answer
        .map(drop)
        .map_err(CliError::rpc(format!("cannot stop container {id}")))
}

pub(super) async fn remove_container(client: &mut Client, id: &str) -> Result<(), CliError> {
    let message = v1::RemoveContainerRequest {
        container_id: id.to_owned(),
    };
    let answer = client.runtime.remove_container(request(message)).await;
    answer
        .map(drop)
        .map_err(CliError::rpc(format!("cannot remove container {id}")))
}

/// Ends a pod; its containers and its network go, its record and its logs stay.
pub(super) async fn stop_pod(client: &mut Client, id: &str) -> Result<(), CliError> {
    let message = v1::StopPodSandboxRequest {
        pod_sandbox_id: id.to_owned(),
    };
    let answer = client.runtime.stop_pod_sandbox(request(message)).await;
    answer
        .map(drop)
        .map_err(CliError::rpc(format!("cannot stop pod {id}")))
}

/// Stops a pod and removes all of it.
pub(super) async fn remove_pod(client: &mut Client, id: &str) -> Result<(), CliError> {
    stop_pod(client, id).await?;
    let message = v1::RemovePodSandboxRequest {
        pod_sandbox_id: id.to_owned(),
    };
    let answer = client.runtime.remove_pod_sandbox(request(message)).await;
    answer
        .map(drop)
        .map_err(CliError::rpc(format!("cannot remove pod {id}")))
}
