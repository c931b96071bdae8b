//! `nexcage run`: a pod and a container in one step.

use std::process::ExitCode;
use std::time::Duration;

use nexcage_cri_api::v1;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::{Format, RunArgs};
use super::client::Client;
use super::delete::{remove_container, remove_pod, stop_container, stop_pod};
use super::error::CliError;
use super::log_line::{Printer, Style};
use super::make::{self, provide_image, random_hex, start_pod};
use super::output::{print, print_json};
use super::pod_spec::Program;
use super::resolve::{Inventory, Target};
use super::{exec, logs, pod_spec};

/// What a container gets to end after Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

/// What `--detach --output json` prints.
#[derive(Debug, Serialize)]
struct Started {
    pod_id: String,
    container_id: String,
    name: String,
}

/// Runs a container in a pod of its own.
pub(super) async fn run(mut client: Client, args: RunArgs) -> Result<ExitCode, CliError> {
    let uid = random_hex(16);
    let name = pod_spec::name(args.name.as_deref(), &args.image, &random_hex(3))?;
    if let Some(pod) = &args.pod {
        return Box::pin(join(client, &args, &name, pod)).await;
    }
    let pod = pod_spec::sandbox(&args.new, &name, &uid)?;
    let container = container(&args, &name, &pod.metadata.clone().unwrap_or_default());
    Box::pin(provide_image(&mut client, &args.image, args.new.pull)).await?;
    // From here on there is something to clean up, so that a signal is obeyed only when it is known what.
    let mut stop = Stop::listen()?;
    let pod_id = Box::pin(start_pod(&mut client, pod.clone(), &args.new)).await?;
    let started = Box::pin(start_container(&mut client, &pod_id, pod, container)).await;
    let container_id = match started {
        Ok(id) => id,
        Err(error) => {
            // Nobody would look for a pod that never ran anything.
            return both(Err(error), remove_pod(&mut client, &pod_id).await);
        }
    };
    if args.detach {
        let started = Started {
            pod_id,
            container_id,
            name,
        };
        tell(&args, &started)?;
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = Box::pin(attach(&mut client, &container_id, &mut stop)).await;
    let cleaned = if args.rm {
        remove_pod(&mut client, &pod_id).await
    } else {
        stop_pod(&mut client, &pod_id).await
    };
    both(outcome, cleaned)
}

/// Runs a container in a pod that is there.
async fn join(
    mut client: Client,
    args: &RunArgs,
    name: &str,
    pod: &str,
) -> Result<ExitCode, CliError> {
    let inventory = Inventory::fetch(&mut client).await?;
    let Target::Pod(pod) = inventory.target(pod)? else {
        return Err(CliError::NotFound {
            kind: "pod",
            name: pod.to_owned(),
        });
    };
    let container = container(args, name, &pod.metadata.clone().unwrap_or_default());
    Box::pin(provide_image(&mut client, &args.image, args.new.pull)).await?;
    let mut stop = Stop::listen()?;
    let config = v1::PodSandboxConfig {
        metadata: pod.metadata.clone(),
        ..Default::default()
    };
    let id = Box::pin(start_container(&mut client, &pod.id, config, container)).await?;
    if args.detach {
        let started = Started {
            pod_id: pod.id.clone(),
            container_id: id,
            name: name.to_owned(),
        };
        tell(args, &started)?;
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = Box::pin(attach(&mut client, &id, &mut stop)).await;
    let cleaned = if args.rm {
        remove_container(&mut client, &id).await
    } else {
        Ok(())
    };
    both(outcome, cleaned)
}

/// What came of it: the first failure is the program's, a second one is told as well.
fn both(
    outcome: Result<ExitCode, CliError>,
    cleaned: Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    match (outcome, cleaned) {
        (Err(error), Err(left)) => {
            left.report();
            Err(error)
        }
        (outcome, cleaned) => cleaned.and(outcome),
    }
}

fn container(args: &RunArgs, name: &str, pod: &v1::PodSandboxMetadata) -> v1::ContainerConfig {
    let program = Program {
        image: &args.image,
        command: &args.command,
    };
    pod_spec::container(&args.new, program, name, pod)
}

async fn start_container(
    client: &mut Client,
    pod_id: &str,
    pod: v1::PodSandboxConfig,
    config: v1::ContainerConfig,
) -> Result<String, CliError> {
    let id = Box::pin(make::create_container(client, pod_id, pod, config)).await?;
    make::start_container(client, &id).await?;
    Ok(id)
}

fn tell(args: &RunArgs, started: &Started) -> Result<(), CliError> {
    match args.output.output {
        Format::Json => print_json(started),
        Format::Table => print(&format!("{}\n", started.pod_id)),
    }
}

/// Shows the container's output until it ends, and stops it when told to; its exit code.
async fn attach(client: &mut Client, id: &str, stop: &mut Stop) -> Result<ExitCode, CliError> {
    let mut log = logs::open(&logs::status(client, id).await?)?;
    let mut printer = Printer::new(std::io::stdout(), std::io::stderr(), Style::Plain);
    let mut following = client.clone();
    let end = logs::follow(&mut following, id, &mut log, &mut printer);
    tokio::pin!(end);
    let end = tokio::select! {
        // Not cancelled: the other arm waits for it as well.
        end = &mut end => end?,
        // Cancel-safe per docs on `Signal::recv`.
        () = stop.asked() => {
            let (stopped, end) = tokio::join!(stop_now(client, id, stop), &mut end);
            stopped?;
            end?
        }
    };
    end.map(|status| exec::exit_status(status.exit_code))
        .ok_or_else(|| CliError::State(format!("container {id} was removed by somebody else")))
}

/// Stops the container; with a second signal, at once.
async fn stop_now(client: &mut Client, id: &str, stop: &mut Stop) -> Result<(), CliError> {
    let mut second = client.clone();
    tokio::select! {
        // Dropped only for another request that does the same, faster.
        stopped = stop_container(client, id, GRACE) => stopped,
        // Cancel-safe per docs on `Signal::recv`.
        () = stop.asked() => stop_container(&mut second, id, Duration::ZERO).await,
    }
}

/// The signals that tell a program to end.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::io("cannot listen for signals"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            // Both cancel-safe per docs on `Signal::recv`.
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
