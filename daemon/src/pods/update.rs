//! UpdatePodSandboxResources.

use std::sync::Arc;

use nexcage_sandbox::PodResources;

use super::limits::{self, PodLimits};
use super::record::PodPhase;
use super::{Pod, PodRecord};
use crate::cri::InvalidField;
use crate::ended;
use crate::error::{Chain, OpError};
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Sets new limits of a pod that runs. When that fails, the old ones are back on record, and are set
/// ([`finish_update`]) in case some were changed.
pub(crate) async fn update_resources(
    runtime: &Arc<Runtime>,
    id: &str,
    resources: PodLimits,
    overhead: Option<PodLimits>,
) -> Result<(), OpError> {
    let pod = runtime.inventory.pod(id)?;
    let runtime = Arc::clone(runtime);
    runtime
        .clone()
        .detached(async move {
            let _changing = pod.lock.lock().await;
            update(&runtime, &pod, &resources, overhead).await
        })
        .await
}

async fn update(
    runtime: &Runtime,
    pod: &Pod,
    resources: &PodLimits,
    overhead: Option<PodLimits>,
) -> Result<(), OpError> {
    let before = pod.record();
    let overhead = overhead.unwrap_or_else(|| before.spec.overhead.clone());
    let wanted = limits::changed(&before.sandbox.resources, resources, &overhead);
    check(runtime, &before, &wanted)?;
    pod.commit(&runtime.store, Lasting::Process, |r| {
        r.spec.resources = r.spec.resources.updated(resources);
        r.spec.overhead = overhead;
        r.sandbox.resources = wanted;
        r.limits_pending = true;
    })
    .await?;
    nexcage_failpoint::hit("pod.limits-recorded");
    let Err(error) = set(runtime, pod).await else {
        tracing::info!(pod = before.id, limits = ?pod.record().sandbox.resources, "limits changed");
        return Ok(());
    };
    pod.commit(&runtime.store, Lasting::Process, |r| {
        r.spec.clone_from(&before.spec);
        r.sandbox.clone_from(&before.sandbox);
    })
    .await?;
    if let Err(left) = set(runtime, pod).await {
        tracing::warn!(
            pod = before.id,
            error = %Chain(&left),
            "cannot go back to the old limits of the pod yet"
        );
    }
    Err(ended::with_pod(error, &before).await)
}

/// Sets the limits on record, if a change of them was begun and not finished. The caller holds the pod's lock.
pub(crate) async fn finish_update(runtime: &Runtime, pod: &Pod) -> Result<(), OpError> {
    if !pod.record().limits_pending {
        return Ok(());
    }
    set(runtime, pod).await
}

async fn set(runtime: &Runtime, pod: &Pod) -> Result<(), OpError> {
    let record = pod.record();
    let backend = runtime.backends.get(&record.backend)?;
    let updated = backend.update(&record.sandbox).await;
    updated.map_err(|e| {
        runtime
            .backends
            .refusal("cannot change the limits of the pod", e)
    })?;
    nexcage_failpoint::hit("pod.limits-set");
    pod.commit(&runtime.store, Lasting::Disk, |r| r.limits_pending = false)
        .await?;
    Ok(())
}

fn check(runtime: &Runtime, record: &PodRecord, wanted: &PodResources) -> Result<(), OpError> {
    if record.phase != PodPhase::Ready {
        let problem = format!("pod sandbox {} is not ready", record.id);
        return Err(OpError::State(problem));
    }
    if !runtime.node.limits() {
        return Err(OpError::State(
            "this host mounts cgroup v1 controllers, so there are no limits to change; \
             boot it with systemd.unified_cgroup_hierarchy=1"
                .into(),
        ));
    }
    if wanted.swap_bytes.is_some() && !runtime.container_facts.swap_accounting {
        let problem = "this kernel does not count swap per cgroup";
        let field = "resources.memory_swap_limit_in_bytes";
        return Err(InvalidField::unsupported(field, problem).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Fixture;

    fn memory(bytes: i64) -> PodLimits {
        PodLimits {
            memory_bytes: Some(bytes),
            ..PodLimits::default()
        }
    }

    async fn limited(fixture: &Fixture) -> Arc<Pod> {
        fixture
            .run("web", |spec| {
                spec.resources = PodLimits {
                    cpu_shares: Some(512),
                    ..memory(1000)
                };
                spec.overhead = memory(10);
            })
            .await
    }

    #[tokio::test]
    async fn new_limits_are_set_and_kept() {
        let fixture = Fixture::new().await;
        let pod = limited(&fixture).await;
        let id = pod.id();
        assert_eq!(fixture.lxc.limits(&id).memory_bytes, Some(1010));

        update_resources(&fixture.runtime, &id, memory(2000), None)
            .await
            .unwrap();
        let expected = PodResources {
            memory_bytes: Some(2010),
            cpu_shares: Some(512),
            ..PodResources::default()
        };
        assert_eq!(fixture.lxc.limits(&id), expected);
        let (pods, _) = fixture.runtime.store.load().await.unwrap();
        assert_eq!(pods[0].sandbox.resources, expected);
        assert_eq!(pods[0].spec.resources.memory_bytes, Some(2000));
        assert!(!pods[0].limits_pending);

        update_resources(&fixture.runtime, &id, memory(-1), Some(memory(20)))
            .await
            .unwrap();
        assert_eq!(fixture.lxc.limits(&id).memory_bytes, None);
        assert_eq!(pod.record().spec.overhead, memory(20));
    }

    #[tokio::test]
    async fn a_change_that_fails_is_taken_back() {
        let fixture = Fixture::new().await;
        let pod = limited(&fixture).await;
        let before = pod.record();
        fixture.lxc.state().refused_updates = 1;
        let error = update_resources(&fixture.runtime, &pod.id(), memory(2000), None).await;
        assert!(matches!(error.unwrap_err(), OpError::Unavailable { .. }));
        assert_eq!(*pod.record(), *before);
        assert_eq!(fixture.lxc.limits(&pod.id()).memory_bytes, Some(1010));
    }

    #[tokio::test]
    async fn what_cannot_be_taken_back_is_finished_later() {
        let fixture = Fixture::new().await;
        let pod = limited(&fixture).await;
        fixture.lxc.state().refused_updates = 2;
        let failed = update_resources(&fixture.runtime, &pod.id(), memory(2000), None).await;
        failed.unwrap_err();
        let record = pod.record();
        assert!(record.limits_pending);
        assert_eq!(record.sandbox.resources.memory_bytes, Some(1010));
        finish_update(&fixture.runtime, &pod).await.unwrap();
        assert!(!pod.record().limits_pending);
    }

    #[tokio::test]
    async fn a_pod_that_has_ended_has_no_limits_to_change() {
        let fixture = Fixture::new().await;
        let pod = limited(&fixture).await;
        crate::pods::stop_pod(&fixture.runtime, &pod.id())
            .await
            .unwrap();
        let refused = update_resources(&fixture.runtime, &pod.id(), memory(1), None).await;
        assert!(matches!(refused.unwrap_err(), OpError::State(_)));
    }

    #[tokio::test]
    async fn kubelets_own_cgroup_tells_what_is_a_limit() {
        let fixture = Fixture::new().await;
        let above = fixture.dir().join("cgroup/kubepods/poduid-web");
        std::fs::create_dir_all(&above).unwrap();
        std::fs::write(above.join("memory.max"), "max\n").unwrap();
        let pod = fixture
            .run("web", |spec| {
                spec.cgroup_parent = "/kubepods/poduid-web".into();
                spec.resources = memory(1000);
            })
            .await;
        assert_eq!(fixture.lxc.limits(&pod.id()).memory_bytes, None);
    }
}
