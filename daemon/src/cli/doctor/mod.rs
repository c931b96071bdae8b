//! `nexcage doctor`: one line for each thing that pods need, with what is wrong and what to do.
//!
//! Each file is a subject: a function that looks, and a pure one that judges what was found. Nothing is changed, no daemon is
//! needed, and what does not answer in time is told as such.

mod api;
mod backups;
mod configuration;
mod daemon;
mod finding;
mod leftovers;
mod network;
mod node;
mod proxmox;
mod storage;
mod vmids;
mod vzdump;

use std::process::ExitCode;
use std::time::Duration;

use camino::Utf8PathBuf;
use futures_util::future::join_all;
use nexcage_config::Config;

use super::args::{DoctorArgs, Format};
use super::error::CliError;
use super::output::{print, print_json};
use crate::runtime::{Paths, ProxmoxNode};
use finding::{Finding, State};

/// How long one subject may take. A cluster file system that has fallen apart may never answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// Pods come and go: what belongs to none is looked at again after this.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// What all checks know.
#[derive(Debug, Clone)]
struct Doctor {
    config: Config,
    paths: Paths,
    proxmox: ProxmoxNode,
    socket: Utf8PathBuf,
}

impl Doctor {
    /// Blocking.
    fn new(config: Config, socket: Option<String>) -> Self {
        let socket = socket.map(|path| Utf8PathBuf::from(path.trim_start_matches("unix://")));
        Self {
            paths: Paths::new(&config),
            proxmox: ProxmoxNode::find(&config),
            socket: socket.unwrap_or_else(|| config.kubernetes.cri_socket.to_path_buf()),
            config,
        }
    }

    #[cfg(test)]
    fn of(config: Config) -> Self {
        Self::new(config, None)
    }
}

/// Looks at everything; fails if anything has failed.
pub(super) fn run(args: &DoctorArgs, socket: Option<String>) -> Result<ExitCode, CliError> {
    // As the daemon does, for the API.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (config, first) = configuration::load(args.config.as_deref());
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(CliError::io("cannot start"))?;
    let findings = tokio.block_on(async {
        let doctor = blocking(move || Doctor::new(config, socket)).await;
        let mut findings = vec![first];
        match doctor {
            Some(doctor) => findings.extend(examine(&doctor).await),
            None => findings.push(Finding::failed(
                "proxmox cluster",
                "the cluster file system does not answer",
                "systemctl restart pve-cluster",
            )),
        }
        findings
    });
    // A thread that waits for a file system would be waited for otherwise.
    tokio.shutdown_background();
    match args.output.output {
        Format::Json => print_json(&findings)?,
        Format::Table => print(&finding::table(&findings))?,
    }
    let failed = findings
        .iter()
        .any(|finding| finding.state == State::Failed);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// All subjects at the same time, in one order.
async fn examine(doctor: &Doctor) -> Vec<Finding> {
    let of = doctor.clone();
    let node = async {
        let config = of.config.clone();
        let local = blocking(move || {
            vec![
                node::rights(),
                node::cgroups(),
                node::apparmor(&config),
                node::seccomp(&config),
                node::programs(),
            ]
        });
        local.await.unwrap_or_default()
    };
    let one = async |finding: Finding| vec![finding];
    let subjects: Vec<(
        &'static str,
        futures_util::future::BoxFuture<'_, Vec<Finding>>,
    )> = vec![
        ("node", Box::pin(node)),
        (
            "lxc",
            Box::pin(async { one(node::lxc(doctor).await).await }),
        ),
        (
            "storage",
            Box::pin(async { one(storage::storage(doctor).await).await }),
        ),
        (
            "network",
            Box::pin(async { one(network::network(doctor).await).await }),
        ),
        ("proxmox", Box::pin(proxmox::proxmox(doctor))),
        ("proxmox api", Box::pin(api::api(doctor))),
        ("vmids", Box::pin(vmids::vmids(doctor))),
        ("backups", Box::pin(backups::backups(doctor))),
        ("daemon", Box::pin(daemon_and_leftovers(doctor))),
    ];
    let examined = subjects.into_iter().map(|(check, subject)| async move {
        let done = tokio::time::timeout(DEADLINE, subject).await;
        done.unwrap_or_else(|_| vec![no_answer(check)])
    });
    join_all(examined).await.into_iter().flatten().collect()
}

fn no_answer(check: &'static str) -> Finding {
    Finding::failed(
        check,
        format!("no answer within {} s", DEADLINE.as_secs()),
        "see whether the machine, its disks or its cluster hang",
    )
}

async fn daemon_and_leftovers(doctor: &Doctor) -> Vec<Finding> {
    let found = leftovers::look(doctor).await;
    let answer = daemon::ask(&doctor.socket).await;
    let mut findings = daemon::judge(&answer);
    findings.extend(daemon::judge_edits(&answer));
    let runs = answer.is_ok();
    let known = match answer {
        Ok(answer) => Ok(answer.pods.into_iter().map(|pod| pod.id).collect()),
        Err(_) => on_record(doctor).await,
    };
    let mut left = match (found, &known) {
        (Ok(found), Ok(known)) => Ok(leftovers::without(found, known)),
        (Err(error), _) => Err(error),
        (_, Err(error)) => Err(error.clone()),
    };
    if runs && left.as_ref().is_ok_and(|left| !left.is_empty()) {
        left = look_again(doctor).await;
    }
    findings.push(leftovers::judge(&left, runs));
    findings
}

/// A pod that is being made is not listed yet.
async fn look_again(doctor: &Doctor) -> Result<leftovers::Things, String> {
    tokio::time::sleep(SECOND_LOOK).await;
    let found = leftovers::look(doctor).await?;
    let answer = daemon::ask(&doctor.socket).await;
    let answer = answer.map_err(|e| crate::error::Chain(&e).to_string())?;
    let known = answer.pods.into_iter().map(|pod| pod.id).collect();
    Ok(leftovers::without(found, &known))
}

async fn on_record(doctor: &Doctor) -> Result<std::collections::HashSet<String>, String> {
    let database = doctor.paths.database();
    let read = blocking(move || leftovers::on_record(&database)).await;
    read.unwrap_or_else(|| Err("the database does not answer".to_owned()))
}

/// Runs what blocks; `None` if it does not come back in time.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = tokio::time::timeout(DEADLINE, tokio::task::spawn_blocking(work)).await;
    done.ok()?.ok()
}
