//! `nexcage stats`.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use nexcage_cri_api::v1;
use serde::Serialize;

use super::args::{Format, StatsArgs};
use super::client::{Client, request};
use super::error::CliError;
use super::human;
use super::output::{print, print_json};
use super::resolve::{Inventory, container_name, pod_name};
use super::table::Table;

/// Time between two looks at the CPU.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// A container's usage as `--output json` prints it.
#[derive(Debug, Serialize)]
struct Usage {
    id: String,
    name: String,
    pod_id: String,
    pod: String,
    /// Of one CPU.
    cpu_percent: Option<f64>,
    memory_bytes: Option<u64>,
    disk_bytes: Option<u64>,
}

/// Prints what running containers use.
pub(super) async fn run(mut client: Client, args: StatsArgs) -> Result<ExitCode, CliError> {
    let before = fetch(&mut client).await?;
    tokio::time::sleep(INTERVAL).await;
    let after = fetch(&mut client).await?;
    let inventory = Inventory::fetch(&mut client).await?;
    let usages = usages(&inventory, &before, after);
    match args.output.output {
        Format::Json => print_json(&usages)?,
        Format::Table => print(&table(&usages))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(client: &mut Client) -> Result<Vec<v1::ContainerStats>, CliError> {
    let answer = client
        .runtime
        .list_container_stats(request(v1::ListContainerStatsRequest { filter: None }))
        .await;
    Ok(answer
        .map_err(CliError::rpc("cannot read statistics"))?
        .into_inner()
        .stats)
}

/// The containers that were there both times, by pod and name.
fn usages(
    inventory: &Inventory,
    before: &[v1::ContainerStats],
    after: Vec<v1::ContainerStats>,
) -> Vec<Usage> {
    let before: HashMap<&str, &v1::ContainerStats> =
        before.iter().map(|stats| (id(stats), stats)).collect();
    let mut usages: Vec<Usage> = after
        .into_iter()
        .filter_map(|now| {
            let then = before.get(id(&now))?;
            let container = inventory.containers.iter().find(|c| c.id == id(&now))?;
            let pod = inventory
                .pods
                .iter()
                .find(|p| p.id == container.pod_sandbox_id)?;
            Some(Usage {
                id: container.id.clone(),
                name: container_name(container).to_owned(),
                pod_id: pod.id.clone(),
                pod: pod_name(pod).to_owned(),
                cpu_percent: cpu(then.cpu.as_ref(), now.cpu.as_ref()),
                memory_bytes: now
                    .memory
                    .and_then(|m| m.working_set_bytes)
                    .map(|v| v.value),
                disk_bytes: now
                    .writable_layer
                    .and_then(|w| w.used_bytes)
                    .map(|v| v.value),
            })
        })
        .collect();
    usages.sort_by(|a, b| (&a.pod, &a.name).cmp(&(&b.pod, &b.name)));
    usages
}

fn id(stats: &v1::ContainerStats) -> &str {
    stats
        .attributes
        .as_ref()
        .map(|a| a.id.as_str())
        .unwrap_or_default()
}

/// CPU time per time, in percent of one CPU; `None` where it is not counted.
#[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
pub(super) fn cpu(then: Option<&v1::CpuUsage>, now: Option<&v1::CpuUsage>) -> Option<f64> {
    let (then, now) = (then?, now?);
    let used = now
        .usage_core_nano_seconds?
        .value
        .saturating_sub(then.usage_core_nano_seconds?.value);
    let passed = now.timestamp.saturating_sub(then.timestamp);
    (passed > 0).then(|| 100.0 * used as f64 / passed as f64)
}

fn table(usages: &[Usage]) -> String {
    let mut table = Table::new(&["POD", "CONTAINER", "CPU %", "MEMORY", "DISK"]);
    let size = |bytes: Option<u64>| bytes.map(human::size).unwrap_or_default();
    for usage in usages {
        let cpu = usage
            .cpu_percent
            .map(|p| format!("{p:.1}"))
            .unwrap_or_default();
        table.row([
            usage.pod.clone(),
            usage.name.clone(),
            cpu,
            size(usage.memory_bytes),
            size(usage.disk_bytes),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(id: &str, at: i64, cpu: u64) -> v1::ContainerStats {
        v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                id: id.into(),
                ..Default::default()
            }),
            cpu: Some(v1::CpuUsage {
                timestamp: at,
                usage_core_nano_seconds: Some(v1::UInt64Value { value: cpu }),
                ..Default::default()
            }),
            memory: Some(v1::MemoryUsage {
                working_set_bytes: Some(v1::UInt64Value { value: 3 << 20 }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_cpu_is_what_was_used_between_two_looks() {
        let inventory = Inventory {
            pods: vec![v1::PodSandbox {
                id: "p".into(),
                metadata: Some(v1::PodSandboxMetadata {
                    name: "web".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            containers: vec![v1::Container {
                id: "c".into(),
                pod_sandbox_id: "p".into(),
                metadata: Some(v1::ContainerMetadata {
                    name: "nginx".into(),
                    attempt: 0,
                }),
                ..Default::default()
            }],
        };
        let second = 1_000_000_000;
        let before = [stats("c", 0, 0)];
        let after = vec![stats("c", second, 250_000_000), stats("new", second, 1)];
        insta::assert_snapshot!(table(&usages(&inventory, &before, after)), @r"
        POD   CONTAINER   CPU %   MEMORY    DISK
        web   nginx       25.0    3.0 MiB   -
        ");
    }
}
