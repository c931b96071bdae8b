//! `nexcage logs`.

use std::process::ExitCode;
use std::time::Duration;

use camino::Utf8Path;
use nexcage_cri_api::v1;

use super::args::{Format, LogsArgs};
use super::client::{Client, request};
use super::error::CliError;
use super::follow::LogFile;
use super::log_line::{Printer, Style};
use super::resolve::Inventory;

/// While a container is silent, how long to wait before looking again: longer and longer.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// Prints the log of a container.
pub(super) async fn run(mut client: Client, args: LogsArgs) -> Result<ExitCode, CliError> {
    let inventory = Inventory::fetch(&mut client).await?;
    let id = inventory.container_of(args.target.name())?.id.clone();
    let status = status(&mut client, &id).await?;
    let mut log = open(&status)?;
    let style = match (args.output.output, args.timestamps) {
        (Format::Json, _) => Style::Json,
        (Format::Table, true) => Style::Timestamps,
        (Format::Table, false) => Style::Plain,
    };
    let mut printer = Printer::new(std::io::stdout(), std::io::stderr(), style);
    if let Some(wanted) = args.tail {
        let lines = log
            .skip_to_last(wanted)
            .await
            .map_err(cannot_read(&status.log_path))?;
        lines.iter().try_for_each(|line| printer.line(line))?;
    }
    if args.follow {
        follow(&mut client, &id, &mut log, &mut printer).await?;
        return Ok(ExitCode::SUCCESS);
    }
    copy(&mut log, &mut printer).await?;
    if !log.is_open() {
        return Err(CliError::State(format!(
            "the log {} is not there",
            status.log_path
        )));
    }
    Ok(ExitCode::SUCCESS)
}

/// The log of a container, from its beginning.
pub(super) fn open(status: &v1::ContainerStatus) -> Result<LogFile, CliError> {
    let path = Utf8Path::new(&status.log_path);
    if !path.is_absolute() {
        return Err(CliError::State(format!(
            "container {} has no log",
            status.id
        )));
    }
    Ok(LogFile::new(path))
}

/// Prints what a container writes until it has ended; its last status, if it has not been removed meanwhile.
pub(super) async fn follow<O: std::io::Write, E: std::io::Write>(
    client: &mut Client,
    id: &str,
    log: &mut LogFile,
    printer: &mut Printer<O, E>,
) -> Result<Option<v1::ContainerStatus>, CliError> {
    let mut wait = SHORTEST_WAIT;
    loop {
        // The status first: what was written before the end is in the file when the end is known.
        let last = match status(client, id).await {
            Ok(status) if has_ended(&status) => Some(Some(status)),
            Ok(_) => None,
            Err(e) if e.is_not_found() => Some(None),
            Err(e) => return Err(e),
        };
        let lines = copy(log, printer).await?;
        if let Some(last) = last {
            return Ok(last);
        }
        wait = if lines > 0 {
            SHORTEST_WAIT
        } else {
            LONGEST_WAIT.min(wait * 2)
        };
        tokio::time::sleep(wait).await;
    }
}

async fn copy<O: std::io::Write, E: std::io::Write>(
    log: &mut LogFile,
    printer: &mut Printer<O, E>,
) -> Result<usize, CliError> {
    log.read_lines(|line| printer.line(line)).await
}

/// The status of a container.
pub(super) async fn status(client: &mut Client, id: &str) -> Result<v1::ContainerStatus, CliError> {
    let message = v1::ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: false,
    };
    let answer = client.runtime.container_status(request(message)).await;
    let answer = answer.map_err(CliError::rpc(format!("cannot look at container {id}")))?;
    answer
        .into_inner()
        .status
        .ok_or_else(|| CliError::State(format!("the runtime says nothing of container {id}")))
}

fn has_ended(status: &v1::ContainerStatus) -> bool {
    status.state() == v1::ContainerState::ContainerExited
}

fn cannot_read(path: &str) -> impl FnOnce(std::io::Error) -> CliError {
    CliError::io(format!("cannot read the log {path}"))
}

impl From<std::io::Error> for CliError {
    fn from(source: std::io::Error) -> Self {
        Self::io("cannot read the log")(source)
    }
}
