//! Requests that failed because the pod or the container that they are about ended meanwhile: an administrator stopped it, or it crashed.
//!
//! What such a request runs into tells little: a namespace is not there, crun knows no container. So whatever failed, the first
//! processes are looked at; the end of one is the answer then, and what failed is its cause.

use std::time::Duration;

use nexcage_sandbox::RunningSandbox;

use crate::containers::ContainerRecord;
use crate::error::{Kind, OpError};
use crate::pidfd;
use crate::pods::PodRecord;

/// How long a first process that was killed may take to be gone. All processes of a pod are killed at once; what a request runs is
/// gone sooner than a first process, which waits for those it has started.
const GRACE: Duration = Duration::from_millis(200);

/// The error in the place of `error`, if the pod has ended.
pub(crate) async fn with_pod(error: OpError, pod: &PodRecord) -> OpError {
    let OpError::Failed { .. } = error else {
        return error;
    };
    match pod_has_ended(pod).await {
        true => OpError::ended(name_of_pod(pod), error),
        false => error,
    }
}

/// The same for a pod that is being made, whose record does not tell yet what runs.
pub(crate) async fn with_sandbox(
    error: OpError,
    pod: &PodRecord,
    running: &RunningSandbox,
) -> OpError {
    let pod = PodRecord {
        running: Some(running.clone()),
        ..pod.clone()
    };
    with_pod(error, &pod).await
}

/// The error in the place of `error`, if the container has ended; with its pod, which is then named, or without.
pub(crate) async fn with_container(
    error: OpError,
    pod: &PodRecord,
    container: &ContainerRecord,
) -> OpError {
    let OpError::Failed { .. } = error else {
        return error;
    };
    match tokio::join!(pod_has_ended(pod), container_has_ended(container)) {
        (true, _) => OpError::ended(name_of_pod(pod), error),
        (false, true) => OpError::ended(name_of_container(container), error),
        (false, false) => error,
    }
}

/// The error in the place of `error`, which says that the container has ended.
pub(crate) async fn container(
    error: OpError,
    pod: &PodRecord,
    container: &ContainerRecord,
) -> OpError {
    let what = match pod_has_ended(pod).await {
        true => name_of_pod(pod),
        false => name_of_container(container),
    };
    OpError::ended(what, error)
}

fn name_of_pod(pod: &PodRecord) -> String {
    format!("{} {}", Kind::Pod, pod.id)
}

fn name_of_container(container: &ContainerRecord) -> String {
    format!("{} {}", Kind::Container, container.id)
}

async fn pod_has_ended(pod: &PodRecord) -> bool {
    match &pod.running {
        Some(running) => has_ended(running.init.pid, running.init.start_time).await,
        None => false,
    }
}

async fn container_has_ended(container: &ContainerRecord) -> bool {
    match &container.init {
        Some(init) => has_ended(init.pid, init.start_time).await,
        None => false,
    }
}

async fn has_ended(pid: u32, start_time: u64) -> bool {
    let ended = tokio::time::timeout(GRACE, pidfd::wait(pid, start_time)).await;
    matches!(ended, Ok(Ok(())))
}

#[cfg(test)]
mod tests;
