//! Many pods, again and again: nothing is left, and the last is made as fast as the first.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nexcage_cri_api::v1::{
    CreateContainerRequest, ListPodSandboxRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopPodSandboxRequest,
};
use nexcage_tests::client::Client;
use nexcage_tests::request;

use crate::{Inventory, Node};

/// Under emulation; `NEXCAGE_TEST_CHURN` may ask for another size, such as `200x5`.
const SIZE: &str = "20x3";

/// The last pods may take this many times what the first took. Two busy processors do not keep time any better; a list
/// that is walked for each pod would show as far more.
const SLOWER: f64 = 2.0;

/// One pod in so many has a container, and with it a root filesystem: emulated, one more program takes its time.
const WITH_CONTAINER: u32 = 4;

/// Requests at one time: kubelet, too, has a worker for each pod, and the node has two processors.
const WORKERS: u32 = 2;

#[test]
fn many_pods_leave_nothing_and_do_not_slow_down() {
    Node::test(|_| {
        let size = std::env::var("NEXCAGE_TEST_CHURN").unwrap_or_else(|_| SIZE.to_owned());
        let (pods, rounds) = size
            .split_once('x')
            .with_context(|| format!("not PODSxROUNDS: {size}"))?;
        let (pods, rounds) = (pods.parse::<u32>()?, rounds.parse::<u32>()?);
        let before = Inventory::take()?;
        let runtime = tokio::runtime::Runtime::new().context("cannot start tokio")?;
        let mut times = Vec::new();
        for round in 0..rounds {
            let made = runtime.block_on(come_and_go(round, pods))?;
            before
                .check()
                .with_context(|| format!("after round {round}"))?;
            times.extend(made);
        }
        let quarter = times.len() / 4;
        let (first, last) = (
            median(&times[..quarter.max(1)]),
            median(&times[times.len() - quarter.max(1)..]),
        );
        println!(
            "{} pods: the first took {first:.0?}, the last {last:.0?} (medians of a quarter)",
            times.len()
        );
        ensure!(
            last.as_secs_f64() < SLOWER * first.as_secs_f64(),
            "pods are made ever slower: {first:?}, {last:?}"
        );
        Ok(())
    });
}

/// Makes pods until all of them run, removes them, and tells how long each took to be made.
async fn come_and_go(round: u32, pods: u32) -> anyhow::Result<Vec<Duration>> {
    let mut client = Client::connect_to(Node::socket()).await?;
    let begun = Instant::now();
    let making = (0..WORKERS).map(|worker| {
        let numbers = (worker..pods).step_by(WORKERS as usize);
        tokio::spawn(make(round, numbers))
    });
    let mut times = Vec::new();
    for made in making.collect::<Vec<_>>() {
        times.extend(made.await??);
    }
    // In the order in which they were made.
    times.sort();
    let made = begun.elapsed();
    let list = client
        .runtime
        .list_pod_sandbox(ListPodSandboxRequest::default())
        .await?;
    let list = list.into_inner().items.into_iter().map(|pod| pod.id);
    let list: Vec<_> = list.collect();
    ensure!(
        list.len() == pods as usize,
        "{} pods are listed, {pods} were made",
        list.len()
    );
    let removing = list
        .chunks(list.len().div_ceil(WORKERS as usize))
        .map(|pods| tokio::spawn(remove(pods.to_vec())));
    for removed in removing.collect::<Vec<_>>() {
        removed.await??;
    }
    println!(
        "round {round}: {pods} pods made in {made:.0?}, all gone after {:.0?}",
        begun.elapsed()
    );
    Ok(times.into_iter().map(|(_, took)| took).collect())
}

/// Makes these pods one after another; tells when each was begun, and how long it took.
async fn make(
    round: u32,
    numbers: impl Iterator<Item = u32>,
) -> anyhow::Result<Vec<(Instant, Duration)>> {
    let mut client = Client::connect_to(Node::socket()).await?;
    let mut times = Vec::new();
    for number in numbers {
        let begun = Instant::now();
        let request = RunPodSandboxRequest {
            config: Some(request::pod(&format!("churn-{round}-{number}"))),
            ..Default::default()
        };
        let pod = client.runtime.run_pod_sandbox(request).await;
        let pod = pod.with_context(|| format!("pod {number} of round {round}"))?;
        times.push((begun, begun.elapsed()));
        // One in so many of each worker's.
        if (number / WORKERS).is_multiple_of(WITH_CONTAINER) {
            let pod = pod.into_inner().pod_sandbox_id;
            start_container(&mut client, pod)
                .await
                .with_context(|| format!("in pod {number} of round {round}"))?;
        }
    }
    Ok(times)
}

/// Stops and removes these pods one after another.
async fn remove(pods: Vec<String>) -> anyhow::Result<()> {
    let mut client = Client::connect_to(Node::socket()).await?;
    for pod in pods {
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: pod.clone(),
        };
        client.runtime.stop_pod_sandbox(stop).await?;
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: pod,
        };
        client.runtime.remove_pod_sandbox(remove).await?;
    }
    Ok(())
}

async fn start_container(client: &mut Client, pod: String) -> anyhow::Result<()> {
    let request = CreateContainerRequest {
        pod_sandbox_id: pod,
        config: Some(request::container("app")),
        sandbox_config: Some(request::pod("churn")),
    };
    let created = client.runtime.create_container(request).await?;
    let request = StartContainerRequest {
        container_id: created.into_inner().container_id,
    };
    client.runtime.start_container(request).await?;
    Ok(())
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}
