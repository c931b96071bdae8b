//! Each request about a pod or a container whose first process is gone, and about one that lives.

use std::sync::Arc;

use nexcage_cri_api::v1;
use nexcage_cri_api::v1::runtime_service_server::RuntimeService as _;
use nexcage_sandbox::SandboxInit;
use tonic::{Code, Request, Status};

use super::*;
use crate::containers::config::ContainerSpec;
use crate::containers::{Container, ContainerPhase, ProcessId, RunsAs};
use crate::cri::Pods;
use crate::pods::Pod;
use crate::runtime::Fixture;
use crate::store::Lasting;

/// Who of them lives.
#[derive(Clone, Copy)]
struct Alive {
    pod: bool,
    container: bool,
}

/// A pod with a container that both seem to be there.
struct Scene {
    fixture: Fixture,
    pod: Arc<Pod>,
    container: Arc<Container>,
}

impl Scene {
    async fn new(phase: ContainerPhase, alive: Alive) -> Self {
        // Refuses whatever it is asked for.
        let fixture = Fixture::with_crun("/bin/false").await;
        let pod = fixture.run("web", |_| {}).await;
        if !alive.pod {
            let init = dead();
            let store = &fixture.runtime.store;
            let committed = pod.commit(store, Lasting::Process, |r| {
                r.running.as_mut().unwrap().init = init;
            });
            committed.await.unwrap();
        }
        let init = match alive.container {
            true => SandboxInit::of(std::process::id()).unwrap(),
            false => dead(),
        };
        let bundle = fixture.dir().join("bundle");
        std::fs::create_dir_all(&bundle).unwrap();
        std::fs::write(bundle.join("config.json"), r#"{"ociVersion":"1.0.2"}"#).unwrap();
        // What crun keeps of a container that it knows.
        let known = fixture.runtime.paths.oci().root.join("c0ffee");
        std::fs::create_dir_all(&known).unwrap();
        std::fs::write(known.join("status"), "").unwrap();
        let container = Container::new(ContainerRecord {
            id: "c0ffee".into(),
            pod_id: pod.id(),
            phase,
            created_at: 0,
            started_at: 0,
            exit: None,
            spec: ContainerSpec::default(),
            image_id: String::new(),
            log_path: fixture.dir().join("log"),
            bundle,
            init: Some(ProcessId {
                pid: init.pid,
                start_time: init.start_time,
            }),
            conmon: None,
            stop_signal: 15,
            user: RunsAs::default(),
            restoring: None,
            image_volumes: Vec::new(),
        });
        fixture
            .runtime
            .inventory
            .add_container(Arc::clone(&container));
        Self {
            fixture,
            pod,
            container,
        }
    }

    fn service(&self) -> Pods {
        Pods::new(Arc::clone(&self.fixture.runtime))
    }

    async fn start(&self) -> Status {
        let container_id = self.container.id();
        let request = v1::StartContainerRequest { container_id };
        let started = self.service().start_container(Request::new(request)).await;
        started.unwrap_err()
    }

    async fn exec(&self) -> Status {
        let request = v1::ExecSyncRequest {
            container_id: self.container.id(),
            cmd: vec!["true".into()],
            timeout: 0,
        };
        let ran = self.service().exec_sync(Request::new(request)).await;
        ran.unwrap_err()
    }

    /// How the answers begin that say what has ended.
    fn pod_has_ended(&self) -> String {
        format!("pod sandbox {} has ended: ", self.pod.id())
    }
}

/// A process that has been.
#[allow(clippy::disallowed_methods, reason = "a child to end")]
fn dead() -> SandboxInit {
    let mut child = std::process::Command::new("/bin/sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let init = SandboxInit::of(child.id()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    init
}

const BOTH: Alive = Alive {
    pod: true,
    container: true,
};
const POD: Alive = Alive {
    pod: true,
    container: false,
};
const NONE: Alive = Alive {
    pod: false,
    container: false,
};

fn says(status: &Status, code: Code, beginning: &str) {
    let message = status.message();
    assert_eq!(status.code(), code, "{message}");
    assert!(message.starts_with(beginning), "{message}");
}

#[tokio::test]
async fn a_container_that_is_gone_is_not_started() {
    let scene = Scene::new(ContainerPhase::Created, POD).await;
    let status = scene.start().await;
    says(
        &status,
        Code::FailedPrecondition,
        "container c0ffee has ended: cannot start container c0ffee",
    );
    // The second time it is on record.
    assert_eq!(scene.start().await.code(), Code::FailedPrecondition);

    let scene = Scene::new(ContainerPhase::Created, NONE).await;
    let status = scene.start().await;
    says(&status, Code::FailedPrecondition, &scene.pod_has_ended());

    // Refused for a reason of its own.
    let scene = Scene::new(ContainerPhase::Created, BOTH).await;
    let status = scene.start().await;
    says(&status, Code::Unknown, "cannot start container c0ffee: ");

    // crun knows none.
    let scene = Scene::new(ContainerPhase::Created, BOTH).await;
    let known = scene.fixture.runtime.paths.oci().root.join("c0ffee");
    std::fs::remove_dir_all(known).unwrap();
    let status = scene.start().await;
    says(
        &status,
        Code::FailedPrecondition,
        "container c0ffee has ended: ",
    );
}

#[tokio::test]
async fn nothing_is_run_in_a_container_that_is_gone() {
    let scene = Scene::new(ContainerPhase::Running, POD).await;
    let status = scene.exec().await;
    says(
        &status,
        Code::FailedPrecondition,
        "container c0ffee has ended: exec failed",
    );

    let scene = Scene::new(ContainerPhase::Running, NONE).await;
    let status = scene.exec().await;
    says(&status, Code::FailedPrecondition, &scene.pod_has_ended());

    // Its cgroup is gone, so it does not run, whoever has its first process's number.
    let scene = Scene::new(ContainerPhase::Running, BOTH).await;
    let status = scene.exec().await;
    says(
        &status,
        Code::FailedPrecondition,
        "container c0ffee has ended: ",
    );

    let runtime = &scene.fixture.runtime;
    runtime.inventory.remove_container("c0ffee");
    assert_eq!(scene.exec().await.code(), Code::NotFound);
}

#[tokio::test]
async fn no_container_is_made_in_a_pod_that_is_gone() {
    let failed = || OpError::failed("cannot create container x", "setns: No such process");
    let scene = Scene::new(ContainerPhase::Running, NONE).await;
    let error = with_pod(failed(), &scene.pod.record()).await;
    let text = crate::error::Chain(&error).to_string();
    let expected = "cannot create container x: setns: No such process";
    assert_eq!(text, scene.pod_has_ended() + expected);

    let scene = Scene::new(ContainerPhase::Running, BOTH).await;
    let error = with_pod(failed(), &scene.pod.record()).await;
    assert!(matches!(error, OpError::Failed { .. }), "{error:?}");
}

#[tokio::test]
async fn what_a_request_asks_for_in_vain_is_told_all_the_same() {
    let scene = Scene::new(ContainerPhase::Running, NONE).await;
    let error = OpError::Deadline("too slow".into());
    let error = with_pod(error, &scene.pod.record()).await;
    assert!(matches!(error, OpError::Deadline(_)), "{error:?}");
}

#[tokio::test]
async fn a_pod_that_ends_while_it_is_made_is_no_pod() {
    let fixture = Fixture::new().await;
    fixture.lxc.state().ends_at_start = true;
    let error = fixture.try_run("web", "", |_| {}).await.unwrap_err();
    let status = crate::cri::refuse("RunPodSandbox", &error);
    says(&status, Code::FailedPrecondition, "pod sandbox ");
    let message = status.message();
    assert!(message.contains(" has ended: "), "{message}");
    assert!(fixture.runtime.inventory.pods().is_empty());

    // Or when it runs, and has no network yet.
    fixture.lxc.state().ends_at_start = false;
    let pod = fixture.run("web", |_| {}).await.record();
    let mut running = pod.running.clone().unwrap();
    running.init = dead();
    let making = PodRecord {
        running: None,
        ..PodRecord::clone(&pod)
    };
    let failed = || OpError::failed("cannot attach the pod to its network", "no namespace");
    let error = with_sandbox(failed(), &making, &running).await;
    assert!(matches!(error, OpError::Ended { .. }), "{error:?}");
}
