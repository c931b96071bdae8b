//! `nexcage checkpoint` and `nexcage restore`.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::{CheckpointArgs, Format, OutputArgs, RestoreArgs};
use super::client::{Client, request, request_within};
use super::error::CliError;
use super::human;
use super::output::{print, print_json};
use super::proto;
use super::resolve::Inventory;
use super::table::Table;

/// What a restore takes at most beyond the time that the container gets to end.
const RESTORE_EXTRA: Duration = Duration::from_secs(120);

/// A checkpoint as `--output json` prints it.
#[derive(Debug, Serialize)]
struct Checkpoint {
    name: String,
    /// RFC 3339.
    created_at: Option<String>,
    /// Space that would be free without it.
    bytes: u64,
    #[serde(skip)]
    created: i64,
}

/// Makes, lists or removes checkpoints.
pub(super) async fn run(mut client: Client, args: CheckpointArgs) -> Result<ExitCode, CliError> {
    let container_id = find(&mut client, &args.container).await?;
    match args.remove {
        Some(name) => remove(client, container_id, name).await?,
        None if args.list => list(client, container_id, &args.output).await?,
        None => create(client, container_id, &args.output).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes a container back; prints the checkpoint's name.
pub(super) async fn restore(mut client: Client, args: RestoreArgs) -> Result<ExitCode, CliError> {
    let container_id = find(&mut client, &args.container).await?;
    let message = proto::RestoreRequest {
        container_id,
        name: args.checkpoint.unwrap_or_default(),
        timeout_seconds: args.timeout,
    };
    let limit = Duration::from_secs(args.timeout.into()) + RESTORE_EXTRA;
    let restored = client
        .checkpoints
        .restore(request_within(message, limit))
        .await
        .map_err(CliError::rpc(format!("cannot restore {}", args.container)))?;
    print(&format!("{}\n", restored.into_inner().name))?;
    Ok(ExitCode::SUCCESS)
}

async fn find(client: &mut Client, name: &str) -> Result<String, CliError> {
    let inventory = Inventory::fetch(client).await?;
    Ok(inventory.container(name)?.id.clone())
}

async fn create(
    mut client: Client,
    container_id: String,
    output: &OutputArgs,
) -> Result<(), CliError> {
    let made = client
        .checkpoints
        .create(request(proto::CreateCheckpointRequest { container_id }))
        .await
        .map_err(CliError::rpc("cannot make a checkpoint"))?;
    let made = Checkpoint::from(made.into_inner());
    match output.output {
        Format::Json => print_json(&made),
        Format::Table => print(&format!("{}\n", made.name)),
    }
}

async fn list(
    mut client: Client,
    container_id: String,
    output: &OutputArgs,
) -> Result<(), CliError> {
    let answer = client
        .checkpoints
        .list(request(proto::ListCheckpointsRequest { container_id }))
        .await
        .map_err(CliError::rpc("cannot list checkpoints"))?;
    let checkpoints: Vec<Checkpoint> = answer
        .into_inner()
        .checkpoints
        .into_iter()
        .map(Checkpoint::from)
        .collect();
    match output.output {
        Format::Json => print_json(&checkpoints),
        Format::Table => print(&table(&checkpoints, human::now())),
    }
}

async fn remove(mut client: Client, container_id: String, name: String) -> Result<(), CliError> {
    let message = proto::RemoveCheckpointRequest {
        container_id,
        name: name.clone(),
    };
    client
        .checkpoints
        .remove(request(message))
        .await
        .map_err(CliError::rpc(format!("cannot remove {name}")))?;
    print(&format!("{name}\n"))
}

impl From<proto::Checkpoint> for Checkpoint {
    fn from(message: proto::Checkpoint) -> Self {
        let proto::Checkpoint {
            name,
            created,
            bytes,
        } = message;
        let created = created.saturating_mul(1_000_000_000);
        Self {
            name,
            created_at: human::timestamp(created),
            bytes,
            created,
        }
    }
}

fn table(checkpoints: &[Checkpoint], now: i64) -> String {
    let mut table = Table::new(&["CHECKPOINT", "AGE", "SIZE"]);
    for checkpoint in checkpoints {
        table.row([
            checkpoint.name.clone(),
            human::age(checkpoint.created, now),
            human::size(checkpoint.bytes),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Checkpoint {
        Checkpoint::from(proto::Checkpoint {
            name: "checkpoint-1767225600".into(),
            created: 1_767_225_600,
            bytes: 4_096_000,
        })
    }

    #[test]
    fn the_table_is_for_people() {
        let now = 1_767_225_720_000_000_000;
        insta::assert_snapshot!(table(&[one()], now), @r"
        CHECKPOINT              AGE   SIZE
        checkpoint-1767225600   2m    3.9 MiB
        ");
    }

    #[test]
    fn the_json_keeps_its_keys() {
        insta::assert_json_snapshot!(one(), @r#"
        {
          "name": "checkpoint-1767225600",
          "created_at": "2026-01-01T00:00:00Z",
          "bytes": 4096000
        }
        "#);
    }
}
