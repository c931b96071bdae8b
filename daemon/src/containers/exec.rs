//! ExecSync.

use std::sync::Arc;
use std::time::Duration;

use nexcage_oci_runtime::{ExecError, ExecOutput, ExecSync};
use oci_spec::runtime::{Process, Spec};

use crate::error::OpError;
use crate::runtime::Runtime;

/// Bytes kept of each stream; CRI asks for 16 MB (CVE-2022-1708).
const OUTPUT_LIMIT: usize = 16 << 20;

/// Runs a command in a running container with the container's own environment, user and confinement.
pub(crate) async fn exec_sync(
    runtime: &Arc<Runtime>,
    id: &str,
    command: Vec<String>,
    timeout: Option<Duration>,
) -> Result<ExecOutput, OpError> {
    let container = runtime.inventory.container(id)?;
    let record = container.record();
    if !record.phase.is_running() {
        return Err(OpError::State(format!(
            "container {} is not running",
            record.id
        )));
    }
    let bundle = record.bundle.clone();
    let process = tokio::task::spawn_blocking(move || process_of(&bundle, command))
        .await
        .map_err(OpError::step(
            "reading the container's specification was interrupted",
        ))?
        .map_err(OpError::step(format!(
            "cannot read the specification of {}",
            record.id
        )))?;
    let exec = ExecSync {
        process,
        timeout,
        output_limit: OUTPUT_LIMIT,
    };
    runtime
        .oci
        .exec_sync(&record.id, &exec)
        .await
        .map_err(|error| match error {
            ExecError::Timeout { .. } => OpError::Deadline(error.to_string()),
            error => OpError::failed("exec failed", error),
        })
}

/// The container's own process with another command line. Blocking.
fn process_of(bundle: &camino::Utf8Path, command: Vec<String>) -> std::io::Result<Process> {
    let text = std::fs::read(bundle.join("config.json"))?;
    let spec: Spec = serde_json::from_slice(&text)?;
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(command));
    process.set_terminal(Some(false));
    process.set_console_size(None);
    Ok(process)
}
