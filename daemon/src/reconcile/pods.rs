//! One pod: whether its record and the machine agree, and what follows.

use std::sync::Arc;
use std::time::Duration;

use nexcage_sandbox::{Audit, SandboxBackend, SandboxError, SandboxSpec, SandboxState};

use super::periodic::Turn;
use crate::error::{Chain, OpError};
use crate::pods::{self, Pod, PodPhase, PodRecord};
use crate::runtime::Runtime;
use crate::store::Lasting;

/// How long a backend may take to say what there is of a sandbox.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Why a pod is looked at.
#[derive(Clone, Debug)]
pub(super) enum When {
    /// The daemon starts: nobody watches the pod yet.
    Start,
    /// It is the pod's turn again, and as long as the backend thinks about the answer no other turn begins.
    Turn(Arc<Turn>),
}

/// What a backend says of a sandbox.
#[derive(Debug)]
struct Seen {
    state: SandboxState,
    audit: Audit,
}

/// Does whatever is due for a pod. The caller holds the pod's lock.
pub(super) async fn settle(runtime: &Arc<Runtime>, pod: &Arc<Pod>, when: When) {
    let record = pod.record();
    let (doing, done) = match record.phase {
        // Its maker gave up, or died: whoever makes a pod holds its lock.
        PodPhase::Creating | PodPhase::Removing => (
            "finish removing pod sandbox",
            pods::remove_everything(runtime, pod).await,
        ),
        PodPhase::Ready => (
            "look after pod sandbox",
            settle_ready(runtime, pod, &record, when).await,
        ),
        // It has ended: kubelet asks for the rest, but a port or an address must not stay taken until then.
        PodPhase::NotReady if !record.torn_down => (
            "finish stopping pod sandbox",
            pods::tear_down(runtime, pod).await,
        ),
        PodPhase::NotReady => return,
    };
    tell(pod, doing, done);
}

async fn settle_ready(
    runtime: &Arc<Runtime>,
    pod: &Arc<Pod>,
    record: &PodRecord,
    when: When,
) -> Result<(), OpError> {
    let starting = matches!(when, When::Start);
    let looked = look_in_time(runtime, record, when).await;
    if starting && !matches!(&looked, Ok(seen) if end_of(record, seen).is_some()) {
        pods::watch(runtime, pod);
    }
    let seen = looked?;
    if let Some(reason) = end_of(record, &seen) {
        return end(runtime, pod, reason).await;
    }
    let edits = match seen.audit {
        Audit::Edited(edits) => edits,
        Audit::AsMade | Audit::Lost { .. } => Vec::new(),
    };
    pod.note_edits(edits);
    pods::finish_update(runtime, pod).await
}

/// Why a pod is over, if it is.
fn end_of(record: &PodRecord, seen: &Seen) -> Option<String> {
    let now = match &seen.state {
        SandboxState::Running(now) => now,
        SandboxState::Stopped => return Some("its sandbox has stopped".to_owned()),
    };
    if let Audit::Lost { reason } = &seen.audit {
        return Some(reason.clone());
    }
    // The namespaces that its containers are in, and its network, went with the first one.
    let another = record
        .running
        .as_ref()
        .is_some_and(|then| then.init != now.init);
    another.then(|| "somebody else has stopped its sandbox and started it again".to_owned())
}

/// Puts the end on record, and ends what is left.
async fn end(runtime: &Arc<Runtime>, pod: &Arc<Pod>, reason: String) -> Result<(), OpError> {
    tracing::warn!(pod = pod.id(), reason, "the pod sandbox has ended");
    pod.commit(&runtime.store, Lasting::Disk, |r| {
        r.phase = PodPhase::NotReady;
        r.ended = Some(reason);
    })
    .await?;
    pods::tear_down(runtime, pod).await
}

/// Asks the backend in a task of its own: an answer that does not come is not waited for, but it keeps the pod's turn, so that
/// questions do not pile up.
async fn look_in_time(
    runtime: &Arc<Runtime>,
    record: &PodRecord,
    when: When,
) -> Result<Seen, OpError> {
    let backend = runtime.backends.get(&record.backend)?;
    let (spec, limit) = (record.sandbox.clone(), deadline(&when));
    let looking = runtime.tasks.spawn(async move {
        let seen = look(&*backend, &spec).await;
        drop(when);
        seen
    });
    match tokio::time::timeout(limit, looking).await {
        Ok(Ok(seen)) => seen.map_err(OpError::step("cannot inspect the sandbox")),
        Ok(Err(error)) => Err(OpError::failed(
            "inspecting the sandbox was interrupted",
            error,
        )),
        Err(_) => Err(OpError::Deadline(format!(
            "the {} backend has not said for {} s what there is of the sandbox",
            record.backend,
            limit.as_secs()
        ))),
    }
}

fn deadline(when: &When) -> Duration {
    match when {
        When::Turn(turn) => turn.look_deadline().unwrap_or(LOOK_DEADLINE),
        When::Start => LOOK_DEADLINE,
    }
}

async fn look(backend: &dyn SandboxBackend, spec: &SandboxSpec) -> Result<Seen, SandboxError> {
    let state = backend.inspect(spec).await?;
    let audit = match state {
        SandboxState::Running(_) => backend.audit(spec).await?,
        SandboxState::Stopped => Audit::AsMade,
    };
    Ok(Seen { state, audit })
}

/// Logs what went wrong with a pod: once, and not in every round.
fn tell(pod: &Pod, doing: &str, done: Result<(), OpError>) {
    let trouble = done.err().map(|error| Chain(&error).to_string());
    let is_new = pod.note_trouble(trouble.clone());
    match trouble {
        Some(trouble) if is_new => {
            tracing::error!(
                pod = pod.id(),
                error = trouble,
                "cannot {doing}; it is tried again"
            );
        }
        Some(trouble) => tracing::debug!(pod = pod.id(), error = trouble, "still cannot {doing}"),
        None if is_new => tracing::info!(pod = pod.id(), "could {doing} after all"),
        None => {}
    }
}
