//! Whether the daemon can do its work: what `Status` answers, found by looking.

use std::sync::Arc;
use std::time::Duration;

use nexcage_sandbox::SandboxBackend;
use tokio::sync::Mutex;

use super::{ProxmoxNode, Runtime};
use crate::apparmor;
use crate::error::{Chain, is_out_of_space};

/// What Proxmox may take to answer. kubelet asks every five seconds, and a cluster file system whose cluster has
/// fallen apart may not answer at all.
const PROXMOX_PATIENCE: Duration = Duration::from_secs(4);

/// What the database may take to answer. On a disk that works a sync may wait for much that others have written.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

/// One condition of CRI's `RuntimeStatus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    /// `RuntimeReady`, `NetworkReady` or `ProxmoxReady`.
    pub(crate) name: &'static str,
    /// Why not, as one word and one sentence; `None` when all is well.
    pub(crate) problem: Option<(&'static str, String)>,
}

/// Checks everything that pods need.
pub(crate) async fn conditions(runtime: &Runtime) -> Vec<Condition> {
    let (runtime_ready, network_ready, proxmox_ready) = tokio::join!(
        runtime_problem(runtime),
        network_problem(runtime),
        proxmox_ready(runtime)
    );
    let condition = |name, problem| Condition { name, problem };
    let mut conditions = vec![
        condition("RuntimeReady", runtime_ready),
        condition("NetworkReady", network_ready),
    ];
    conditions.extend(proxmox_ready);
    conditions
}

/// Where this machine is a node of Proxmox: whether pods can be made there. It says nothing of the pods that run, nor of
/// other handlers.
pub(crate) async fn proxmox_ready(runtime: &Runtime) -> Option<Condition> {
    let backend = runtime.backends.proxmox()?;
    Some(Condition {
        name: "ProxmoxReady",
        problem: proxmox_problem(runtime, backend).await,
    })
}

async fn proxmox_problem(
    runtime: &Runtime,
    backend: &Arc<dyn SandboxBackend>,
) -> Option<(&'static str, String)> {
    let (backend, config) = (Arc::clone(backend), runtime.config.clone());
    let asked = ask_proxmox(runtime, async move {
        let error = backend.check().await.err()?;
        let quorate = tokio::task::spawn_blocking(move || ProxmoxNode::find(&config).quorate());
        let reason = match quorate.await {
            Ok(Some(false)) => "ProxmoxNoQuorum",
            _ => "ProxmoxNotReady",
        };
        Some((reason, Chain(&error).to_string()))
    });
    asked.await.unwrap_or_else(|| {
        let seconds = PROXMOX_PATIENCE.as_secs();
        let message = format!("Proxmox has not answered for {seconds} s");
        Some(("ProxmoxTimeout", message))
    })
}

/// Whether pods that are containers of Proxmox may have user namespaces of their own.
pub(crate) async fn proxmox_user_namespaces(runtime: &Runtime) -> bool {
    if runtime.backends.proxmox().is_none() {
        return false;
    }
    let config = runtime.config.clone();
    let asked = ask_proxmox(runtime, async move {
        let looked =
            tokio::task::spawn_blocking(move || ProxmoxNode::find(&config).has_user_namespaces());
        looked.await.unwrap_or(false)
    });
    asked.await.unwrap_or(false)
}

/// Asks one question at a time, however long the answer takes: questions that hang hold a thread each. `None` if there is
/// no answer in time.
async fn ask_proxmox<T: Send + 'static>(
    runtime: &Runtime,
    question: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    ask_within(&runtime.proxmox_turn, PROXMOX_PATIENCE, question).await
}

async fn ask_within<T: Send + 'static>(
    turn: &Arc<Mutex<()>>,
    patience: Duration,
    question: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let turn = Arc::clone(turn);
    let asked = async {
        let turn = turn.lock_owned().await;
        let task = tokio::spawn(async move {
            let answer = question.await;
            drop(turn);
            answer
        });
        task.await.ok()
    };
    tokio::time::timeout(patience, asked).await.ok()?
}

/// What keeps pods from being made and removed. Full is not broken: kubelet does not remove pods, which would make room, while
/// the runtime is not ready.
async fn runtime_problem(runtime: &Runtime) -> Option<(&'static str, String)> {
    if let Some(problem) = database_problem(runtime).await {
        return Some(("DatabaseNotReady", problem));
    }
    if let Err(e) = runtime.images.layers().check().await
        && !is_out_of_space(&e)
    {
        return Some(("StorageNotReady", Chain(&e).to_string()));
    }
    if let Err(e) = runtime.backends.check_default().await {
        return Some(("SandboxBackendNotReady", Chain(&e).to_string()));
    }
    // Without them no pod is started, nor a container that does not ask to be unconfined.
    if let Err(e) = apparmor::ensure_all(&runtime.config.security).await {
        return Some(("AppArmorNotReady", Chain(&e).to_string()));
    }
    None
}

async fn database_problem(runtime: &Runtime) -> Option<String> {
    match tokio::time::timeout(DATABASE_PATIENCE, runtime.store.check()).await {
        Ok(Err(e)) if !is_out_of_space(&e) => Some(Chain(&e).to_string()),
        Ok(_) => None,
        Err(_) => Some(format!(
            "the database has not answered for {} s",
            DATABASE_PATIENCE.as_secs()
        )),
    }
}

async fn network_problem(runtime: &Runtime) -> Option<(&'static str, String)> {
    match runtime.cni.status().await {
        Ok(_) => None,
        Err(e) => Some(("NetworkPluginNotReady", Chain(&e).to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use nexcage_config::Proxmox;

    use super::*;
    use crate::error::OpError;
    use crate::runtime::Fixture;

    async fn problems(fixture: &Fixture) -> Vec<(&'static str, Option<&'static str>)> {
        let conditions = conditions(&fixture.runtime).await;
        let reason = |c: Condition| (c.name, c.problem.map(|(reason, _)| reason));
        conditions.into_iter().map(reason).collect()
    }

    #[tokio::test]
    async fn proxmox_has_a_condition_where_it_is() {
        let fixture = Fixture::new().await;
        let names: Vec<_> = problems(&fixture).await.into_iter().map(|p| p.0).collect();
        assert_eq!(names, ["RuntimeReady", "NetworkReady"]);
    }

    #[tokio::test]
    async fn a_cluster_without_quorum_does_not_stop_the_node() {
        let pve = tempfile::tempdir().unwrap();
        let pve_dir = camino::Utf8Path::from_path(pve.path()).unwrap().to_owned();
        let fixture = Fixture::with(|config| {
            config.default_backend = Some(nexcage_config::Backend::Proxmox);
            config.proxmox = Some(Proxmox {
                pve_dir: nexcage_config::AbsolutePath::new(pve_dir.clone()).unwrap(),
                ..Proxmox::default()
            });
        })
        .await;
        assert_eq!(problems(&fixture).await[2], ("ProxmoxReady", None));
        let running = fixture.run("before", |_| {}).await;

        fixture.proxmox.state().unavailable = Some("no quorum".into());
        let members = r#"{"nodename": "a", "cluster": {"name": "c", "quorate": 0}}"#;
        std::fs::write(pve_dir.join(".members"), members).unwrap();
        let found = problems(&fixture).await;
        assert_eq!(found[0], ("RuntimeReady", None));
        assert_eq!(found[2], ("ProxmoxReady", Some("ProxmoxNoQuorum")));
        assert!(running.record().phase.can_hold_containers());

        let refused = fixture.try_run("during", "", |_| {}).await.unwrap_err();
        assert!(
            matches!(&*refused, OpError::Unavailable { doing, .. } if doing.contains("no quorum"))
        );
        let host = |spec: &mut crate::pods::PodSpec| {
            let annotation = ("nexcage.runtime.backend".to_owned(), "host".to_owned());
            spec.annotations.extend([annotation]);
        };
        let other = fixture.try_run("other", "", host).await.unwrap();
        assert_eq!(other.record().backend, "host");
    }

    #[tokio::test]
    async fn a_question_without_an_answer_is_not_asked_again() {
        let (turn, patience) = (Arc::default(), Duration::from_millis(20));
        let asked = Arc::new(AtomicU32::new(0));
        for _ in 0..3 {
            let asked = Arc::clone(&asked);
            let answer = ask_within(&turn, patience, async move {
                asked.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
            });
            assert!(answer.await.is_none());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_handler_without_its_backend_is_not_offered() {
        let fixture = Fixture::new().await;
        let names = |fixture: &Fixture| -> Vec<String> {
            let handlers = fixture.runtime.backends.handlers();
            handlers.into_iter().map(|h| h.name).collect()
        };
        assert_eq!(names(&fixture), [""]);
        for (handler, annotation) in [("nexcage", None), ("", Some("proxmox"))] {
            let annotate = |spec: &mut crate::pods::PodSpec| {
                let value = annotation.map(|value: &str| value.to_owned());
                let named = value.map(|value| ("nexcage.runtime.backend".to_owned(), value));
                spec.annotations.extend(named);
            };
            let refused = fixture.try_run("web", handler, annotate).await.unwrap_err();
            assert!(
                matches!(&*refused, OpError::State(text) if text.contains("/etc/pve")),
                "{refused}"
            );
        }
        let there = Fixture::with(|config| config.proxmox = Some(Proxmox::default())).await;
        assert_eq!(names(&there), ["", "nexcage", "nexcage-lxc", "proxmox-lxc"]);
        let pod = there.try_run("web", "nexcage-lxc", |_| {}).await.unwrap();
        assert_eq!(pod.record().backend, "proxmox");
    }
}
