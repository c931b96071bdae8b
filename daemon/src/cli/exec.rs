//! `nexcage exec`.

use std::process::ExitCode;
use std::time::Duration;

use nexcage_cri_api::v1;
use tonic::Request;

use super::args::ExecArgs;
use super::client::{Client, request_within};
use super::error::CliError;
use super::output::write_all;
use super::resolve::Inventory;

/// What the runtime gets to kill a command that took too long, and to answer.
const GRACE: Duration = Duration::from_secs(10);

/// Runs a command in a container by `ExecSync`.
pub(super) async fn run(mut client: Client, args: ExecArgs) -> Result<ExitCode, CliError> {
    if args.tty || args.interactive {
        let what = "a terminal or standard input in the container needs a streaming server, which \
            the daemon does not have; leave out -i and -t";
        return Err(CliError::Usage(what.to_owned()));
    }
    let inventory = Inventory::fetch(&mut client).await?;
    let container_id = inventory.container(&args.container)?.id.clone();
    let message = v1::ExecSyncRequest {
        container_id,
        cmd: args.command,
        timeout: args.timeout.unwrap_or(0).into(),
    };
    let request = match args.timeout {
        None => Request::new(message),
        Some(seconds) => request_within(message, Duration::from_secs(seconds.into()) + GRACE),
    };
    let answer = client
        .runtime
        .exec_sync(request)
        .await
        .map_err(CliError::rpc(format!(
            "cannot run the command in {}",
            args.container
        )))?;
    let v1::ExecSyncResponse {
        stdout,
        stderr,
        exit_code,
    } = answer.into_inner();
    write_all(&mut std::io::stdout().lock(), &stdout)?;
    write_all(&mut std::io::stderr().lock(), &stderr)?;
    Ok(exit_status(exit_code))
}

/// The exit code of a process in a container as that of this program.
pub(super) fn exit_status(code: i32) -> ExitCode {
    match u8::try_from(code) {
        Ok(code) => ExitCode::from(code),
        // No process on Linux ends with such a number: the runtime does not know.
        Err(_) => ExitCode::FAILURE,
    }
}
