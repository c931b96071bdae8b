//! `nexcage list --runtime`: pods as containers that an administrator can see.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use nexcage_config::Backend;
use nexcage_cri_api::v1;
use serde::{Deserialize, Serialize};

use super::{AT_ONCE, ips, state_name};
use crate::cli::args::{Format, ListArgs, PodRuntime};
use crate::cli::client::{Client, request};
use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::output::{print, print_json};
use crate::cli::stats;
use crate::cli::table::Table;

/// A pod as `--output json` prints it.
#[derive(Debug, Serialize)]
struct Row {
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
    backend: String,
    /// The name that lxc-ls shows, or the VMID.
    container: Option<String>,
    /// Of its first process; 0 if it has none.
    pid: u32,
    ips: Vec<String>,
    /// Of one CPU.
    cpu_percent: Option<f64>,
    memory_bytes: Option<u64>,
    edits: Vec<Edit>,
    ended: Option<String>,
    #[serde(skip)]
    created: i64,
}

/// What somebody else changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Edit {
    key: String,
    ours: Option<String>,
    theirs: Option<String>,
}

/// What nexcage tells of a pod beyond CRI.
#[derive(Debug, Deserialize)]
struct Info {
    backend: String,
    container: Option<String>,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    edits: Vec<Edit>,
    ended: Option<String>,
}

/// Prints the pods of one kind.
pub(super) async fn run(
    client: &mut Client,
    args: &ListArgs,
    runtime: PodRuntime,
) -> Result<(), CliError> {
    let before = usage(client).await?;
    tokio::time::sleep(stats::INTERVAL).await;
    let after = usage(client).await?;
    let mut rows = rows(client, args.all, runtime).await?;
    for row in &mut rows {
        add_usage(row, before.get(&row.id), after.get(&row.id));
    }
    match args.output.output {
        Format::Json => print_json(&rows),
        Format::Table => print(&table(&rows, args.no_trunc)),
    }
}

async fn usage(client: &mut Client) -> Result<HashMap<String, v1::LinuxPodSandboxStats>, CliError> {
    let message = v1::ListPodSandboxStatsRequest { filter: None };
    let answer = client
        .runtime
        .list_pod_sandbox_stats(request(message))
        .await;
    let answer = answer.map_err(CliError::rpc("cannot read statistics"))?;
    let stats = answer.into_inner().stats.into_iter();
    Ok(stats
        .filter_map(|stats| Some((stats.attributes?.id, stats.linux?)))
        .collect())
}

fn add_usage(
    row: &mut Row,
    before: Option<&v1::LinuxPodSandboxStats>,
    after: Option<&v1::LinuxPodSandboxStats>,
) {
    let cpu = |stats: Option<&v1::LinuxPodSandboxStats>| stats.and_then(|s| s.cpu);
    row.cpu_percent = stats::cpu(cpu(before).as_ref(), cpu(after).as_ref());
    let memory = after.and_then(|stats| stats.memory.as_ref());
    row.memory_bytes = memory.and_then(|m| m.working_set_bytes).map(|v| v.value);
}

/// Newest first; without `all`, what lives.
async fn rows(client: &mut Client, all: bool, runtime: PodRuntime) -> Result<Vec<Row>, CliError> {
    let message = v1::ListPodSandboxRequest { filter: None };
    let listed = client.runtime.list_pod_sandbox(request(message)).await;
    let listed = listed.map_err(CliError::rpc("cannot list pods"))?;
    let shown = listed
        .into_inner()
        .items
        .into_iter()
        .filter(|pod| all || pod.state() == v1::PodSandboxState::SandboxReady);
    let one = |pod: v1::PodSandbox| {
        let mut client = client.clone();
        async move { look(&mut client, pod).await }
    };
    let looked = futures_util::stream::iter(shown).map(one);
    let looked: Vec<_> = looked.buffer_unordered(AT_ONCE).collect().await;
    let looked: Vec<Option<Row>> = looked.into_iter().collect::<Result<_, _>>()?;
    let mut rows: Vec<Row> = looked
        .into_iter()
        .flatten()
        .filter(|row| is_of(runtime, &row.backend))
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.created));
    Ok(rows)
}

fn is_of(runtime: PodRuntime, backend: &str) -> bool {
    let known = [Backend::Lxc, Backend::Proxmox, Backend::Host];
    let backend = known.into_iter().find(|known| known.name() == backend);
    backend.is_some_and(|backend| runtime.includes(backend))
}

/// A pod with all that there is to know; `None` if it was removed meanwhile.
async fn look(client: &mut Client, pod: v1::PodSandbox) -> Result<Option<Row>, CliError> {
    let message = v1::PodSandboxStatusRequest {
        pod_sandbox_id: pod.id.clone(),
        verbose: true,
    };
    match client.runtime.pod_sandbox_status(request(message)).await {
        Ok(answer) => row(pod, answer.into_inner()).map(Some),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(CliError::rpc(format!("cannot look at pod {}", pod.id))(
            status,
        )),
    }
}

fn row(pod: v1::PodSandbox, answer: v1::PodSandboxStatusResponse) -> Result<Row, CliError> {
    let info = answer
        .info
        .get("info")
        .map(String::as_str)
        .unwrap_or_default();
    let info: Info = serde_json::from_str(info).map_err(|_| {
        CliError::State(
            "the runtime at this socket does not say what its pods are; --runtime needs nexcage's own"
                .to_owned(),
        )
    })?;
    let state = state_name(&pod);
    let metadata = pod.metadata.unwrap_or_default();
    Ok(Row {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        state,
        created_at: human::timestamp(pod.created_at),
        runtime_handler: pod.runtime_handler,
        backend: info.backend,
        container: info.container,
        pid: info.pid,
        ips: ips(answer),
        cpu_percent: None,
        memory_bytes: None,
        edits: info.edits,
        ended: info.ended,
        created: pod.created_at,
        id: pod.id,
    })
}

fn table(rows: &[Row], no_trunc: bool) -> String {
    let mut table = Table::new(&[
        "POD",
        "NAMESPACE",
        "BACKEND",
        "CONTAINER",
        "STATE",
        "IP",
        "CPU %",
        "MEMORY",
        "EDITED",
    ]);
    for row in rows {
        let edits: Vec<&str> = row.edits.iter().map(|edit| edit.key.as_str()).collect();
        let container = row.container.as_deref().unwrap_or_default();
        table.row([
            row.name.clone(),
            row.namespace.clone(),
            row.backend.clone(),
            match no_trunc {
                true => container.to_owned(),
                false => short(container, &row.id),
            },
            row.state.replace('_', " "),
            row.ips.join(","),
            row.cpu_percent
                .map(|p| format!("{p:.1}"))
                .unwrap_or_default(),
            row.memory_bytes.map(human::size).unwrap_or_default(),
            edits.join(","),
        ]);
    }
    table.render()
}

/// The name of a container, with the pod's id in it shortened.
fn short(container: &str, id: &str) -> String {
    match container.split_once(id) {
        Some((before, after)) if !id.is_empty() => {
            format!("{before}{}{after}", human::short_id(id))
        }
        _ => container.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(info: &serde_json::Value) -> Row {
        let id = "3fa9c1d2e4f5".repeat(5);
        let pod = v1::PodSandbox {
            id: id.clone(),
            metadata: Some(v1::PodSandboxMetadata {
                name: "web".into(),
                uid: "uid-1".into(),
                namespace: "default".into(),
                attempt: 0,
            }),
            state: v1::PodSandboxState::SandboxReady.into(),
            created_at: 1_700_000_000_000_000_000,
            ..Default::default()
        };
        let network = v1::PodSandboxNetworkStatus {
            ip: "10.88.0.7".into(),
            additional_ips: Vec::new(),
        };
        let info = info.to_string().replace("ID", &id);
        let answer = v1::PodSandboxStatusResponse {
            status: Some(v1::PodSandboxStatus {
                network: Some(network),
                ..Default::default()
            }),
            info: HashMap::from([("info".to_owned(), info)]),
            ..Default::default()
        };
        row(pod, answer).unwrap()
    }

    fn stats(at: i64, cpu: u64) -> v1::LinuxPodSandboxStats {
        v1::LinuxPodSandboxStats {
            cpu: Some(v1::CpuUsage {
                timestamp: at,
                usage_core_nano_seconds: Some(v1::UInt64Value { value: cpu }),
                ..Default::default()
            }),
            memory: Some(v1::MemoryUsage {
                working_set_bytes: Some(v1::UInt64Value { value: 200 << 20 }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn all() -> Vec<Row> {
        let proxmox = serde_json::json!({
            "backend": "proxmox", "container": "900012", "pid": 4711,
            "edits": [{"key": "memory", "ours": "512", "theirs": "1024"}, {"key": "onboot", "ours": null, "theirs": "1"}],
        });
        let plain = serde_json::json!({"backend": "lxc", "container": "nexcage-ID", "pid": 4712, "edits": []});
        let host = serde_json::json!({"backend": "host", "container": null, "pid": 0, "ended": "its sandbox has stopped"});
        let mut rows: Vec<Row> = [proxmox, plain, host].iter().map(answered).collect();
        let second = 1_000_000_000;
        add_usage(
            &mut rows[0],
            Some(&stats(0, 0)),
            Some(&stats(second, second.unsigned_abs())),
        );
        rows
    }

    #[test]
    fn the_table_is_for_people() {
        insta::assert_snapshot!(table(&all(), false), @r"
        POD   NAMESPACE   BACKEND   CONTAINER              STATE   IP          CPU %   MEMORY      EDITED
        web   default     proxmox   900012                 ready   10.88.0.7   100.0   200.0 MiB   memory,onboot
        web   default     lxc       nexcage-3fa9c1d2e4f5   ready   10.88.0.7   -       -           -
        web   default     host      -                      ready   10.88.0.7   -       -           -
        ");
        assert!(table(&all(), true).contains(&"3fa9c1d2e4f5".repeat(5)));
    }

    #[test]
    fn programs_get_json() {
        let mut rows = all();
        insta::assert_json_snapshot!(&rows.remove(0), @r#"
        {
          "id": "3fa9c1d2e4f53fa9c1d2e4f53fa9c1d2e4f53fa9c1d2e4f53fa9c1d2e4f5",
          "name": "web",
          "namespace": "default",
          "uid": "uid-1",
          "attempt": 0,
          "state": "ready",
          "created_at": "2023-11-14T22:13:20Z",
          "runtime_handler": "",
          "backend": "proxmox",
          "container": "900012",
          "pid": 4711,
          "ips": [
            "10.88.0.7"
          ],
          "cpu_percent": 100.0,
          "memory_bytes": 209715200,
          "edits": [
            {
              "key": "memory",
              "ours": "512",
              "theirs": "1024"
            },
            {
              "key": "onboot",
              "ours": null,
              "theirs": "1"
            }
          ],
          "ended": null
        }
        "#);
    }

    #[test]
    fn kinds_of_pods() {
        let shown = |runtime| {
            let backends = ["lxc", "proxmox", "host", "strange"];
            backends
                .into_iter()
                .filter(|b| is_of(runtime, b))
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(PodRuntime::Lxc), ["lxc", "proxmox"]);
        assert_eq!(shown(PodRuntime::Proxmox), ["proxmox"]);
        assert_eq!(shown(PodRuntime::Host), ["host"]);
    }

    #[test]
    fn another_runtime_is_told_as_such() {
        let pod = v1::PodSandbox::default();
        let error = row(pod, v1::PodSandboxStatusResponse::default()).unwrap_err();
        assert!(error.to_string().contains("needs nexcage's own"), "{error}");
    }
}
