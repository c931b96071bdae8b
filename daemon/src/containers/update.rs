//! UpdateContainerResources and ReopenContainerLog.

use std::sync::Arc;

use super::config::Resources;
use crate::ended;
use crate::error::OpError;
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Sets new limits of a container that has not ended, and keeps them for its status.
pub(crate) async fn update_resources(
    runtime: &Arc<Runtime>,
    id: &str,
    resources: Resources,
) -> Result<(), OpError> {
    let container = runtime.inventory.container(id)?;
    let runtime = Arc::clone(runtime);
    runtime
        .clone()
        .detached(async move {
            let pod = runtime.inventory.pod(&container.pod_id())?;
            let _changing = pod.lock.lock().await;
            let record = container.record();
            if !record.phase.may_live() {
                return Err(OpError::State(format!("container {} has ended", record.id)));
            }
            if !runtime.node.limits() {
                return Err(OpError::State(
                    "this host mounts cgroup v1 controllers, so there are no limits to change; \
                     boot it with systemd.unified_cgroup_hierarchy=1"
                        .into(),
                ));
            }
            let merged = updated(&record.spec.resources, &resources);
            let limits = super::spec::linux_resources(&merged, &runtime.container_facts)
                .map_err(super::create::refused)?;
            if let Err(error) = runtime.oci.update(&record.id, &limits).await {
                let what = format!("cannot set limits of container {}", record.id);
                let error = OpError::failed(what, error);
                return Err(ended::with_container(error, &pod.record(), &record).await);
            }
            container
                .commit(&runtime.store, Lasting::Disk, |r| {
                    r.spec.resources = merged;
                    true
                })
                .await?;
            Ok(())
        })
        .await
}

/// Makes conmon write to a new log file after kubelet renamed the old one.
pub(crate) async fn reopen_log(runtime: &Arc<Runtime>, id: &str) -> Result<(), OpError> {
    let container = runtime.inventory.container(id)?;
    let record = container.record();
    if !record.phase.is_running() {
        return Err(OpError::State(format!(
            "container {} is not running",
            record.id
        )));
    }
    runtime
        .oci
        .reopen_log(&record.id, &record.bundle, &record.log_path)
        .await
        .map_err(OpError::step(format!(
            "cannot reopen the log of container {}",
            record.id
        )))
}

/// The limits after an update: what it gives replaces, what it leaves out stays.
fn updated(old: &Resources, new: &Resources) -> Resources {
    let text = |new: &str, old: &str| if new.is_empty() { old } else { new }.to_owned();
    let mut unified = old.unified.clone();
    unified.extend(new.unified.clone());
    Resources {
        cpu_period_us: new.cpu_period_us.or(old.cpu_period_us),
        cpu_quota_us: new.cpu_quota_us.or(old.cpu_quota_us),
        cpu_shares: new.cpu_shares.or(old.cpu_shares),
        memory_bytes: new.memory_bytes.or(old.memory_bytes),
        memory_swap_bytes: new.memory_swap_bytes.or(old.memory_swap_bytes),
        // Not a limit of the cgroup: it is set once, at the start.
        oom_score_adj: old.oom_score_adj,
        cpuset_cpus: text(&new.cpuset_cpus, &old.cpuset_cpus),
        cpuset_mems: text(&new.cpuset_mems, &old.cpuset_mems),
        hugepages: if new.hugepages.is_empty() {
            &old.hugepages
        } else {
            &new.hugepages
        }
        .clone(),
        unified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let old = Resources {
            memory_bytes: Some(1),
            cpu_shares: Some(2),
            cpuset_cpus: "0".into(),
            ..Resources::default()
        };
        let new = Resources {
            memory_bytes: Some(5),
            ..Resources::default()
        };
        let both = updated(&old, &new);
        assert_eq!((both.memory_bytes, both.cpu_shares), (Some(5), Some(2)));
        assert_eq!(both.cpuset_cpus, "0");
    }
}
