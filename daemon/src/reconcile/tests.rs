//! Rounds over sandboxes that an administrator, a crash or a cluster has changed.

use std::time::Duration;

use nexcage_sandbox::{Audit, Edit, SandboxId};
use tokio::sync::Notify;

use super::periodic::Rounds;
use super::sweep::{Sweeping, sandboxes};
use super::*;
use crate::pods::{PodPhase, PodRecord};
use crate::runtime::Fixture;

/// One whole round.
async fn round(fixture: &Fixture) {
    round_of(fixture, &Rounds::new(&fixture.runtime)).await;
}

async fn round_of(fixture: &Fixture, rounds: &Rounds) {
    for turn in rounds.begin(&fixture.runtime) {
        turn.await.unwrap();
    }
}

async fn sweep_lxc(fixture: &Fixture) {
    let backend = fixture.runtime.backends.get("lxc").unwrap();
    sandboxes(&fixture.runtime, &backend, &Sweeping::default()).await;
}

fn id(pod: &Pod) -> SandboxId {
    SandboxId(pod.id())
}

/// What the database says of the only pod.
async fn on_record(fixture: &Fixture) -> PodRecord {
    let (mut pods, _) = fixture.runtime.store.load().await.unwrap();
    assert_eq!(pods.len(), 1);
    pods.remove(0)
}

fn memory_edit() -> Edit {
    Edit {
        key: "memory".into(),
        ours: Some("512".into()),
        theirs: Some("1024".into()),
    }
}

#[tokio::test]
async fn a_pod_as_it_was_made_is_left_alone() {
    let fixture = Fixture::new().await;
    let pod = fixture.run("web", |_| {}).await;
    let before = pod.record();
    round(&fixture).await;
    assert_eq!(*pod.record(), *before);
    assert!(fixture.lxc.state().sandboxes[&id(&pod)].running);
}

#[tokio::test]
async fn a_stopped_sandbox_ends_its_pod() {
    let fixture = Fixture::new().await;
    let pod = fixture.run("web", |_| {}).await;
    fixture
        .lxc
        .state()
        .sandboxes
        .get_mut(&id(&pod))
        .unwrap()
        .running = false;
    round(&fixture).await;
    let record = on_record(&fixture).await;
    assert_eq!(record.phase, PodPhase::NotReady);
    assert!(record.torn_down);
    assert_eq!(record.ended.as_deref(), Some("its sandbox has stopped"));
}

#[tokio::test]
async fn a_lost_sandbox_is_ended_and_says_why() {
    let fixture = Fixture::new().await;
    let pod = fixture.run("web", |_| {}).await;
    let lost = Audit::Lost {
        reason: "900000.conf is gone".into(),
    };
    fixture.lxc.state().audits.insert(id(&pod), lost);
    round(&fixture).await;
    let record = on_record(&fixture).await;
    assert_eq!(record.phase, PodPhase::NotReady);
    assert_eq!(record.ended.as_deref(), Some("900000.conf is gone"));
    assert!(!fixture.lxc.state().sandboxes[&id(&pod)].running);
}

#[tokio::test]
async fn a_sandbox_that_was_started_again_is_not_the_pods() {
    let fixture = Fixture::new().await;
    let pod = fixture.run("web", |_| {}).await;
    fixture.lxc.state().started_again = true;
    round(&fixture).await;
    let record = on_record(&fixture).await;
    assert!(record.torn_down && record.ended.unwrap().contains("started it again"));
    assert!(!fixture.lxc.state().sandboxes[&id(&pod)].running);
}

#[tokio::test]
async fn an_edit_is_told_and_neither_undone_nor_believed() {
    let fixture = Fixture::new().await;
    let pod = fixture.run("web", |_| {}).await;
    let before = pod.record();
    let edited = Audit::Edited(vec![memory_edit()]);
    fixture.lxc.state().audits.insert(id(&pod), edited);
    round(&fixture).await;
    round(&fixture).await;
    assert_eq!(*pod.record(), *before);
    assert_eq!(pod.edits(), [memory_edit()]);
    fixture.lxc.state().audits.clear();
    round(&fixture).await;
    assert!(pod.edits().is_empty());
}

#[tokio::test]
async fn what_could_not_be_removed_is_removed_later() {
    let fixture = Fixture::new().await;
    let pod = fixture.run("web", |_| {}).await;
    fixture.lxc.state().removal_refused = Some("no quorum".into());
    crate::pods::remove_pod(&fixture.runtime, &pod.id())
        .await
        .unwrap_err();
    round(&fixture).await;
    assert_eq!(on_record(&fixture).await.phase, PodPhase::Removing);
    fixture.lxc.state().removal_refused = None;
    round(&fixture).await;
    assert!(fixture.runtime.inventory.pods().is_empty());
    assert!(fixture.lxc.state().sandboxes.is_empty());
}

#[tokio::test]
async fn a_pod_that_is_being_made_is_no_wreck() {
    let fixture = Fixture::new().await;
    let gate = Arc::new(Notify::new());
    fixture.lxc.state().start_gate = Some(Arc::clone(&gate));
    let making = async {
        let pod = fixture.run("web", |_| {}).await;
        assert_eq!(pod.record().phase, PodPhase::Ready);
    };
    let meanwhile = async {
        while fixture.runtime.inventory.pods().is_empty() {
            tokio::task::yield_now().await;
        }
        round(&fixture).await;
        sweep_lxc(&fixture).await;
        gate.notify_one();
    };
    tokio::join!(making, meanwhile);
    assert_eq!(fixture.lxc.state().sandboxes.len(), 1);
}

#[tokio::test]
async fn what_belongs_to_no_pod_is_removed() {
    let fixture = Fixture::new().await;
    let pod = fixture.run("web", |_| {}).await;
    let forgotten = fixture.run("forgotten", |_| {}).await;
    fixture.runtime.inventory.remove_pod(&forgotten.id());
    sweep_lxc(&fixture).await;
    let left: Vec<_> = fixture.lxc.state().sandboxes.keys().cloned().collect();
    assert_eq!(left, [id(&pod)]);
}

#[tokio::test]
async fn a_backend_without_an_answer_holds_up_no_other_pod() {
    let fixture = Fixture::new().await;
    let silent = fixture.run("silent", |_| {}).await;
    let stopped = fixture.run("stopped", |_| {}).await;
    {
        let mut state = fixture.lxc.state();
        state.silent.insert(id(&silent));
        state.sandboxes.get_mut(&id(&stopped)).unwrap().running = false;
    }
    let rounds = Rounds::new(&fixture.runtime).with_look_deadline(Duration::from_millis(50));
    round_of(&fixture, &rounds).await;
    assert!(stopped.record().torn_down);
    assert_eq!(silent.record().phase, PodPhase::Ready);
    // The question is still open, so that it is not asked again; and the pod can be stopped all the same.
    assert!(!silent.begin_turn());
    crate::pods::stop_pod(&fixture.runtime, &silent.id())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_pod_that_somebody_works_on_waits_for_the_next_round() {
    let fixture = Fixture::new().await;
    let pod = fixture.run("web", |_| {}).await;
    fixture
        .lxc
        .state()
        .sandboxes
        .get_mut(&id(&pod))
        .unwrap()
        .running = false;
    let changing = pod.lock.lock().await;
    round(&fixture).await;
    assert_eq!(pod.record().phase, PodPhase::Ready);
    drop(changing);
    round(&fixture).await;
    assert!(pod.record().torn_down);
}

#[tokio::test]
async fn trouble_is_new_once() {
    let fixture = Fixture::new().await;
    let pod = fixture.run("web", |_| {}).await;
    let trouble = || Some("no quorum".to_owned());
    assert!(pod.note_trouble(trouble()));
    assert!(!pod.note_trouble(trouble()));
    assert!(pod.note_trouble(None));
    assert!(!pod.note_trouble(None));
}

#[tokio::test]
async fn a_start_takes_over_what_runs_and_ends_what_does_not() {
    let fixture = Fixture::new().await;
    let [runs, stopped, lost, edited] = [
        fixture.run("runs", |_| {}).await.id(),
        fixture.run("stopped", |_| {}).await.id(),
        fixture.run("lost", |_| {}).await.id(),
        fixture.run("edited", |_| {}).await.id(),
    ];
    let fixture = fixture.killed().await;
    {
        let mut state = fixture.lxc.state();
        let reason = "gone".to_owned();
        state
            .sandboxes
            .get_mut(&SandboxId(stopped.clone()))
            .unwrap()
            .running = false;
        state
            .audits
            .insert(SandboxId(lost.clone()), Audit::Lost { reason });
        let edit = Audit::Edited(vec![memory_edit()]);
        state.audits.insert(SandboxId(edited.clone()), edit);
    }
    reconcile(&fixture.runtime).await.unwrap();
    let pod = |id: &str| fixture.runtime.inventory.pod(id).unwrap();
    assert_eq!(pod(&runs).record().phase, PodPhase::Ready);
    for id in [&stopped, &lost] {
        let record = pod(id).record();
        assert!(record.torn_down && record.ended.is_some(), "{record:?}");
    }
    assert_eq!(pod(&edited).record().phase, PodPhase::Ready);
    assert_eq!(pod(&edited).edits(), [memory_edit()]);
}

#[tokio::test]
async fn a_start_serves_though_something_cannot_be_removed() {
    let fixture = Fixture::new().await;
    let pod = fixture.run("web", |_| {}).await;
    fixture.lxc.state().removal_refused = Some("no quorum".into());
    crate::pods::remove_pod(&fixture.runtime, &pod.id())
        .await
        .unwrap_err();
    let fixture = fixture.killed().await;
    reconcile(&fixture.runtime).await.unwrap();
    assert_eq!(on_record(&fixture).await.phase, PodPhase::Removing);
    fixture.lxc.state().removal_refused = None;
    round(&fixture).await;
    assert!(fixture.runtime.inventory.pods().is_empty());
}
