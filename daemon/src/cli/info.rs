//! `nexcage info`.

use std::process::ExitCode;

use nexcage_cri_api::v1;
use serde::Serialize;
use serde_json::Value;

use super::args::{Format, InfoArgs};
use super::client::{Client, request};
use super::error::CliError;
use super::output::{print, print_json};
use super::table::Table;

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Info {
    conditions: Vec<Condition>,
    /// Of any CRI runtime but nexcage, `null`.
    storage_driver: Option<String>,
    storage_driver_reason: Option<String>,
    cgroup_driver: Option<String>,
    /// Whether limits work on this host.
    limits: Option<bool>,
    root_dir: Option<String>,
    state_dir: Option<String>,
    runtime_handlers: Vec<Handler>,
}

#[derive(Debug, Serialize)]
struct Condition {
    name: String,
    ready: bool,
    reason: String,
    message: String,
}

#[derive(Debug, Serialize)]
struct Handler {
    name: String,
    user_namespaces: bool,
    recursive_read_only_mounts: bool,
}

/// Prints what the daemon says of itself; fails if it is not ready.
pub(super) async fn run(mut client: Client, args: InfoArgs) -> Result<ExitCode, CliError> {
    let answer = client
        .runtime
        .status(request(v1::StatusRequest { verbose: true }))
        .await
        .map_err(CliError::rpc("cannot ask for the daemon's status"))?;
    let info = info(answer.into_inner());
    match args.output.output {
        Format::Json => print_json(&info)?,
        Format::Table => print(&table(&info))?,
    }
    let ready = info.conditions.iter().all(|condition| condition.ready);
    Ok(match ready {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn info(status: v1::StatusResponse) -> Info {
    let config: Value = status
        .info
        .get("config")
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let text = |key: &str| config[key].as_str().map(str::to_owned);
    let conditions = status.status.unwrap_or_default().conditions;
    Info {
        conditions: conditions
            .into_iter()
            .map(|condition| Condition {
                name: condition.r#type,
                ready: condition.status,
                reason: condition.reason,
                message: condition.message,
            })
            .collect(),
        storage_driver: text("storageDriver"),
        storage_driver_reason: text("storageDriverReason"),
        cgroup_driver: text("cgroupDriver"),
        limits: config["limits"].as_bool(),
        root_dir: text("rootDir"),
        state_dir: text("stateDir"),
        runtime_handlers: status.runtime_handlers.into_iter().map(handler).collect(),
    }
}

fn handler(handler: v1::RuntimeHandler) -> Handler {
    let features = handler.features.unwrap_or_default();
    Handler {
        name: handler.name,
        user_namespaces: features.user_namespaces,
        recursive_read_only_mounts: features.recursive_read_only_mounts,
    }
}

fn table(info: &Info) -> String {
    let mut table = Table::new(&["WHAT", "STATE", "WHY"]);
    for condition in &info.conditions {
        let state = if condition.ready { "yes" } else { "no" };
        let why = match condition.reason.as_str() {
            "" => String::new(),
            reason => format!("{reason}: {}", condition.message),
        };
        table.row([condition.name.clone(), state.to_owned(), why]);
    }
    let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
    table.row([
        "storage driver".to_owned(),
        or_none(&info.storage_driver),
        or_none(&info.storage_driver_reason),
    ]);
    let limits = match info.limits {
        Some(false) => "this host mounts cgroup v1 controllers: pods have no limits",
        Some(true) | None => "",
    };
    table.row([
        "cgroup driver".to_owned(),
        or_none(&info.cgroup_driver),
        limits.to_owned(),
    ]);
    for (what, dir) in [("root", &info.root_dir), ("state", &info.state_dir)] {
        table.row([what.to_owned(), or_none(dir), String::new()]);
    }
    for handler in &info.runtime_handlers {
        let users = match handler.user_namespaces {
            true => "user namespaces",
            false => "no user namespaces",
        };
        table.row([
            "runtime handler".to_owned(),
            format!("{:?}", handler.name),
            users.to_owned(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> v1::StatusResponse {
        let condition = |name: &str, status, reason: &str| v1::RuntimeCondition {
            r#type: name.into(),
            status,
            reason: reason.into(),
            message: "no configuration in /etc/cni/net.d".into(),
        };
        let config = serde_json::json!({
            "storageDriver": "zfs", "storageDriverReason": "the dataset tank/nexcage exists",
            "cgroupDriver": "systemd", "limits": true, "rootDir": "/var/lib/nexcage", "stateDir": "/run/nexcage",
        });
        v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", true, ""),
                    condition("NetworkReady", false, "NetworkPluginNotReady"),
                ],
            }),
            info: [("config".to_owned(), config.to_string())].into(),
            runtime_handlers: vec![v1::RuntimeHandler::default()],
            features: None,
        }
    }

    #[test]
    fn the_table_is_for_people() {
        insta::assert_snapshot!(table(&info(answer())), @r#"
        WHAT              STATE              WHY
        RuntimeReady      yes                -
        NetworkReady      no                 NetworkPluginNotReady: no configuration in /etc/cni/net.d
        storage driver    zfs                the dataset tank/nexcage exists
        cgroup driver     systemd            -
        root              /var/lib/nexcage   -
        state             /run/nexcage       -
        runtime handler   ""                 no user namespaces
        "#);
    }

    #[test]
    fn another_runtime_has_less_to_say() {
        let info = info(v1::StatusResponse::default());
        assert!(info.storage_driver.is_none() && info.conditions.is_empty());
    }
}
