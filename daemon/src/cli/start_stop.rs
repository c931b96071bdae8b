//! `nexcage start` and `nexcage stop`.

use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::try_join_all;
use nexcage_cri_api::v1;
use serde::Serialize;
use v1::ContainerState::{ContainerCreated, ContainerRunning};

use super::args::{Format, StartArgs, StopArgs};
use super::client::Client;
use super::delete::{stop_container, stop_pod};
use super::error::CliError;
use super::make::start_container;
use super::output::{print, print_json};
use super::resolve::{Inventory, Target};

/// What `start --output json` prints.
#[derive(Debug, Serialize)]
struct Started {
    pod_id: String,
    started: Vec<String>,
}

/// What `stop --output json` prints.
#[derive(Debug, Serialize)]
struct Stopped {
    pod_id: String,
    stopped: Vec<String>,
    pod_stopped: bool,
}

/// Starts what was created.
pub(super) async fn start(mut client: Client, args: StartArgs) -> Result<ExitCode, CliError> {
    let name = args.target.name();
    let inventory = Inventory::fetch(&mut client).await?;
    let target = inventory.target(name)?;
    let containers = to_start(&inventory, target, name)?;
    for id in &containers {
        start_container(&mut client, id).await?;
    }
    let started = Started {
        pod_id: pod_id(target).to_owned(),
        started: containers,
    };
    match args.output.output {
        Format::Json => print_json(&started)?,
        Format::Table => print(&format!("{name}\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Stops a pod with its containers, or a container.
pub(super) async fn stop(mut client: Client, args: StopArgs) -> Result<ExitCode, CliError> {
    let name = args.target.name();
    let inventory = Inventory::fetch(&mut client).await?;
    let target = inventory.target(name)?;
    let running = containers(&inventory, target)
        .filter(|c| matches!(c.state(), ContainerCreated | ContainerRunning))
        .map(|c| c.id.clone());
    let running: Vec<String> = running.collect();
    let grace = Duration::from_secs(args.timeout.into());
    // At once: each has all of the time.
    let stopping = running.iter().map(|id| {
        let mut client = client.clone();
        async move { stop_container(&mut client, id, grace).await }
    });
    try_join_all(stopping).await?;
    let pod_stopped = matches!(target, Target::Pod(_));
    if pod_stopped {
        stop_pod(&mut client, pod_id(target)).await?;
    }
    let stopped = Stopped {
        pod_id: pod_id(target).to_owned(),
        stopped: running,
        pod_stopped,
    };
    match args.output.output {
        Format::Json => print_json(&stopped)?,
        Format::Table => print(&format!("{name}\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The containers that can be started and do not run yet.
fn to_start(
    inventory: &Inventory,
    target: Target<'_>,
    name: &str,
) -> Result<Vec<String>, CliError> {
    if let Target::Pod(pod) = target
        && pod.state() != v1::PodSandboxState::SandboxReady
    {
        return Err(CliError::State(format!(
            "pod {name} has stopped, and a pod is not started again: `nexcage delete --name {name}` removes it, then \
             create it anew"
        )));
    }
    let all: Vec<&v1::Container> = containers(inventory, target).collect();
    let in_state = |state| all.iter().filter(move |c| c.state() == state);
    let created: Vec<String> = in_state(ContainerCreated).map(|c| c.id.clone()).collect();
    if !created.is_empty() || in_state(ContainerRunning).next().is_some() {
        return Ok(created);
    }
    Err(CliError::State(match all.is_empty() {
        true => {
            format!("pod {name} has no container; `nexcage run --pod {name} IMAGE` runs one in it")
        }
        false => format!(
            "{name} has ended, and what has ended is not started again: `nexcage delete --force --name {name}` removes it, \
             then create it anew"
        ),
    }))
}

fn containers<'a>(
    inventory: &'a Inventory,
    target: Target<'a>,
) -> impl Iterator<Item = &'a v1::Container> {
    let all = inventory.containers.iter();
    all.filter(move |c| match target {
        Target::Pod(pod) => c.pod_sandbox_id == pod.id,
        Target::Container(container) => c.id == container.id,
    })
}

fn pod_id(target: Target<'_>) -> &str {
    match target {
        Target::Pod(pod) => &pod.id,
        Target::Container(container) => &container.pod_sandbox_id,
    }
}

#[cfg(test)]
mod tests {
    use v1::ContainerState::ContainerExited;
    use v1::PodSandboxState::{SandboxNotready, SandboxReady};

    use super::*;

    fn inventory(pod: v1::PodSandboxState, containers: &[(&str, v1::ContainerState)]) -> Inventory {
        let container = |(id, state): &(&str, v1::ContainerState)| v1::Container {
            id: (*id).to_owned(),
            pod_sandbox_id: "p1".into(),
            metadata: Some(v1::ContainerMetadata {
                name: (*id).to_owned(),
                attempt: 0,
            }),
            state: (*state).into(),
            ..Default::default()
        };
        Inventory {
            pods: vec![v1::PodSandbox {
                id: "p1".into(),
                metadata: Some(v1::PodSandboxMetadata {
                    name: "web".into(),
                    ..Default::default()
                }),
                state: pod.into(),
                ..Default::default()
            }],
            containers: containers.iter().map(container).collect(),
        }
    }

    fn starts(inventory: &Inventory, name: &str) -> Result<Vec<String>, String> {
        let target = inventory.target(name).unwrap();
        to_start(inventory, target, name).map_err(|e| e.to_string())
    }

    #[test]
    fn what_was_created_is_started() {
        let some = inventory(
            SandboxReady,
            &[
                ("a", ContainerCreated),
                ("b", ContainerRunning),
                ("c", ContainerExited),
            ],
        );
        assert_eq!(starts(&some, "web").unwrap(), ["a"]);
        assert_eq!(starts(&some, "a").unwrap(), ["a"]);
        assert!(starts(&some, "b").unwrap().is_empty(), "it runs already");
        assert!(starts(&some, "c").unwrap_err().contains("create it anew"));
    }

    #[test]
    fn what_cannot_be_started_says_what_to_do() {
        let empty = inventory(SandboxReady, &[]);
        assert!(
            starts(&empty, "web")
                .unwrap_err()
                .contains("nexcage run --pod web")
        );
        let over = inventory(SandboxNotready, &[("a", ContainerExited)]);
        assert!(
            starts(&over, "web")
                .unwrap_err()
                .contains("nexcage delete --name web")
        );
    }
}
