//! ExecSync.

use std::sync::Arc;
use std::time::Duration;

use nexcage_oci_runtime::{ExecError, ExecOutput, ExecSync};
use oci_spec::runtime::{Process, Spec};

use super::record::ContainerRecord;
use crate::ended;
use crate::error::OpError;
use crate::runtime::Runtime;

/// Bytes kept of both streams together. CRI asks for a response of at most 16 MB (CVE-2022-1708), and that is
/// what kubelet's client accepts; the message around them needs some of it.
const OUTPUT_LIMIT: usize = (16 << 20) - 4096;

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
    let output = runtime.oci.exec_sync(&record.id, &exec).await;
    match output {
        Ok(output) => Ok(capped(output, OUTPUT_LIMIT)),
        Err(error) => Err(refused(runtime, &record, error).await),
    }
}

async fn refused(runtime: &Runtime, record: &ContainerRecord, error: ExecError) -> OpError {
    let not_running = matches!(error, ExecError::NotRunning { .. });
    let error = match error {
        ExecError::Timeout { .. } => return OpError::Deadline(error.to_string()),
        error => OpError::failed("exec failed", error),
    };
    let pod = match runtime.inventory.pod(&record.pod_id) {
        Ok(pod) => pod.record(),
        // Removed meanwhile, and the container with it.
        Err(no_pod) => return no_pod,
    };
    match not_running {
        true => ended::container(error, &pod, record).await,
        false => ended::with_container(error, &pod, record).await,
    }
}

/// Cuts both streams so that together they are at most `limit` bytes; neither loses more than it must for the other to
/// have half.
fn capped(mut output: ExecOutput, limit: usize) -> ExecOutput {
    let room = limit.saturating_sub(output.stdout.len()).max(limit / 2);
    output.stderr.truncate(room);
    output.stdout.truncate(limit - output.stderr.len());
    output
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_share_the_limit() {
        let lengths = |stdout: usize, stderr: usize| {
            let output = ExecOutput {
                stdout: vec![0; stdout],
                stderr: vec![0; stderr],
                exit_code: 0,
            };
            let output = capped(output, 10);
            (output.stdout.len(), output.stderr.len())
        };
        assert_eq!(lengths(3, 4), (3, 4));
        assert_eq!(lengths(100, 0), (10, 0));
        assert_eq!(lengths(100, 2), (8, 2));
        assert_eq!(lengths(100, 100), (5, 5));
        assert_eq!(lengths(3, 100), (3, 7));
    }
}
