//! Pods and containers as CRI shows them.

use std::collections::HashMap;
use std::sync::Arc;

use nexcage_cri_api::v1;
use nexcage_sandbox::{Edit, NamespaceMode};

use super::user_namespace::mapping_messages;
use crate::containers::config::{ImageSpec, Mount, MountSource, Propagation, Resources};
use crate::containers::{Container, ContainerPhase, ContainerRecord};
use crate::inventory::Inventory;
use crate::pods::{Pod, PodPhase, PodRecord};

/// `ListPodSandbox`, newest first.
pub(crate) fn list_pods(
    inventory: &Inventory,
    filter: v1::PodSandboxFilter,
) -> Vec<v1::PodSandbox> {
    let v1::PodSandboxFilter {
        id,
        state,
        label_selector,
    } = filter;
    let state = state.map(|v1::PodSandboxStateValue { state }| state);
    let mut records: Vec<_> = inventory.pods().iter().map(|pod| pod.record()).collect();
    records.retain(|r| {
        r.phase.is_visible()
            && r.id.starts_with(&id)
            && state.is_none_or(|s| s == i32::from(pod_state(r.phase)))
            && label_selector
                .iter()
                .all(|(k, v)| r.spec.labels.get(k) == Some(v))
    });
    records.sort_by_key(|r| std::cmp::Reverse(r.created_at));
    records.iter().map(|r| pod_view(r)).collect()
}

fn pod_view(record: &PodRecord) -> v1::PodSandbox {
    v1::PodSandbox {
        id: record.id.clone(),
        metadata: Some(pod_metadata(record)),
        state: pod_state(record.phase).into(),
        created_at: record.created_at,
        labels: record.spec.labels.clone().into_iter().collect(),
        annotations: record.spec.annotations.clone().into_iter().collect(),
        runtime_handler: record.handler.clone(),
    }
}

pub(super) fn pod_metadata(record: &PodRecord) -> v1::PodSandboxMetadata {
    v1::PodSandboxMetadata {
        name: record.spec.name.clone(),
        uid: record.spec.uid.clone(),
        namespace: record.spec.namespace.clone(),
        attempt: record.spec.attempt,
    }
}

fn pod_state(phase: PodPhase) -> v1::PodSandboxState {
    match phase {
        PodPhase::Ready => v1::PodSandboxState::SandboxReady,
        PodPhase::Creating | PodPhase::NotReady | PodPhase::Removing => {
            v1::PodSandboxState::SandboxNotready
        }
    }
}

/// `PodSandboxStatus`.
pub(crate) fn pod_status(
    pod: &Pod,
    containers: &[Arc<Container>],
    verbose: bool,
) -> v1::PodSandboxStatusResponse {
    let record = &pod.record();
    let containers_statuses = containers
        .iter()
        .map(|c| c.record())
        .filter(|r| r.phase.is_visible())
        .map(|r| container_view(&r))
        .collect();
    v1::PodSandboxStatusResponse {
        status: Some(v1::PodSandboxStatus {
            id: record.id.clone(),
            metadata: Some(pod_metadata(record)),
            state: pod_state(record.phase).into(),
            created_at: record.created_at,
            network: network(record),
            linux: Some(v1::LinuxPodSandboxStatus {
                namespaces: Some(v1::Namespace {
                    options: Some(namespaces(record)),
                }),
            }),
            labels: record.spec.labels.clone().into_iter().collect(),
            annotations: record.spec.annotations.clone().into_iter().collect(),
            runtime_handler: record.handler.clone(),
        }),
        info: if verbose {
            pod_info(record, &pod.edits())
        } else {
            HashMap::new()
        },
        containers_statuses,
        timestamp: crate::node::now(),
    }
}

fn network(record: &PodRecord) -> Option<v1::PodSandboxNetworkStatus> {
    let mut ips = record.ips.iter().map(ToString::to_string);
    Some(v1::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
    })
}

/// Echoed exactly: kubelet makes a pod anew when they differ from its own.
fn namespaces(record: &PodRecord) -> v1::NamespaceOption {
    let mode = |mode| match mode {
        NamespaceMode::Pod => v1::NamespaceMode::Pod,
        NamespaceMode::Node => v1::NamespaceMode::Node,
    };
    let spec = &record.spec;
    let pid = match spec.pid {
        NamespaceMode::Pod if !spec.shared_pid => v1::NamespaceMode::Container,
        other => mode(other),
    };
    v1::NamespaceOption {
        network: mode(spec.network).into(),
        pid: pid.into(),
        ipc: mode(spec.ipc).into(),
        target_id: String::new(),
        userns_options: spec.user_namespace.as_ref().map(|u| v1::UserNamespace {
            mode: v1::NamespaceMode::Pod.into(),
            uids: mapping_messages(&u.uids),
            gids: mapping_messages(&u.gids),
        }),
    }
}

fn pod_info(record: &PodRecord, edits: &[Edit]) -> HashMap<String, String> {
    let live = record
        .running
        .as_ref()
        .filter(|_| record.phase == PodPhase::Ready);
    let init = live.map(|r| r.init.pid);
    let netns = record.netns.as_ref();
    let info = serde_json::json!({
        "pid": init.unwrap_or(0),
        "backend": record.backend,
        "runtimeHandler": record.handler,
        // By whoever else can reach the container: it goes on as it was made.
        "edits": edits,
        "ended": record.ended,
        "container": record.running.as_ref().and_then(|r| r.container.as_ref()),
        // In effect; `config` has them as they came.
        "resources": record.sandbox.resources,
        "cgroups": record.running.as_ref().map(|r| &r.cgroups),
        "cniResult": record.cni_result,
        "config": record.spec,
        "runtimeSpec": { "linux": { "namespaces": [{ "type": "network", "path": netns }] } },
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

/// `ListContainers`, newest first.
pub(crate) fn list_containers(
    inventory: &Inventory,
    filter: v1::ContainerFilter,
) -> Vec<v1::Container> {
    let v1::ContainerFilter {
        id,
        state,
        pod_sandbox_id,
        label_selector,
    } = filter;
    let state = state.map(|v1::ContainerStateValue { state }| state);
    let mut records: Vec<_> = inventory.containers().iter().map(|c| c.record()).collect();
    records.retain(|r| {
        r.phase.is_visible()
            && r.id.starts_with(&id)
            && r.pod_id.starts_with(&pod_sandbox_id)
            && state.is_none_or(|s| s == i32::from(container_state(r.phase)))
            && label_selector
                .iter()
                .all(|(k, v)| r.spec.labels.get(k) == Some(v))
    });
    records.sort_by_key(|r| std::cmp::Reverse(r.created_at));
    records.iter().map(|r| container_item(r)).collect()
}

fn container_item(record: &ContainerRecord) -> v1::Container {
    v1::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.pod_id.clone(),
        metadata: Some(container_metadata(record)),
        image: Some(image_spec(&record.spec.image)),
        image_ref: record.image_id.clone(),
        state: container_state(record.phase).into(),
        created_at: record.created_at,
        labels: record.spec.labels.clone().into_iter().collect(),
        annotations: record.spec.annotations.clone().into_iter().collect(),
        image_id: record.image_id.clone(),
    }
}

pub(super) fn container_metadata(record: &ContainerRecord) -> v1::ContainerMetadata {
    v1::ContainerMetadata {
        name: record.spec.name.clone(),
        attempt: record.spec.attempt,
    }
}

fn image_spec(image: &ImageSpec) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.image.clone(),
        annotations: image.annotations.clone().into_iter().collect(),
        user_specified_image: image.user_specified_image.clone(),
        runtime_handler: image.runtime_handler.clone(),
        image_ref: image.image_ref.clone(),
    }
}

fn container_state(phase: ContainerPhase) -> v1::ContainerState {
    match phase {
        ContainerPhase::Creating | ContainerPhase::Created => v1::ContainerState::ContainerCreated,
        ContainerPhase::Running | ContainerPhase::Restoring => v1::ContainerState::ContainerRunning,
        ContainerPhase::Exited | ContainerPhase::Removing => v1::ContainerState::ContainerExited,
    }
}

/// `ContainerStatus`.
pub(crate) async fn container_status(
    record: Arc<ContainerRecord>,
    verbose: bool,
) -> v1::ContainerStatusResponse {
    let info = if verbose {
        container_info(&record).await
    } else {
        HashMap::new()
    };
    v1::ContainerStatusResponse {
        status: Some(container_view(&record)),
        info,
    }
}

fn container_view(record: &ContainerRecord) -> v1::ContainerStatus {
    let exit = record.exit.as_ref();
    let user = &record.user;
    v1::ContainerStatus {
        id: record.id.clone(),
        metadata: Some(container_metadata(record)),
        state: container_state(record.phase).into(),
        created_at: record.created_at,
        started_at: record.started_at,
        finished_at: exit.map_or(0, |e| e.finished_at),
        exit_code: exit.map_or(0, |e| e.code),
        image: Some(image_spec(&record.spec.image)),
        image_ref: record.image_id.clone(),
        reason: exit.map(|e| e.reason.clone()).unwrap_or_default(),
        message: exit.map(|e| e.message.clone()).unwrap_or_default(),
        labels: record.spec.labels.clone().into_iter().collect(),
        annotations: record.spec.annotations.clone().into_iter().collect(),
        mounts: record
            .spec
            .mounts
            .iter()
            .map(|m| mount(m, record))
            .collect(),
        log_path: record.log_path.to_string(),
        resources: Some(v1::ContainerResources {
            linux: Some(resources(&record.spec.resources)),
            windows: None,
        }),
        image_id: record.image_id.clone(),
        user: Some(v1::ContainerUser {
            linux: Some(v1::LinuxContainerUser {
                uid: user.uid.into(),
                gid: user.gid.into(),
                supplemental_groups: user.groups.iter().map(|g| i64::from(*g)).collect(),
            }),
        }),
        stop_signal: stop_signal(record.stop_signal).into(),
    }
}

/// CRI numbers signals by its own list; the names are the kernel's.
fn stop_signal(number: i32) -> v1::Signal {
    crate::containers::signal::Signal::from_number(number)
        .map_or(v1::Signal::RuntimeDefault, super::container::cri_signal)
}

fn mount(mount: &Mount, record: &ContainerRecord) -> v1::Mount {
    let (host_path, image, image_sub_path) = match &mount.source {
        MountSource::HostPath(path) => (path.to_string(), None, String::new()),
        MountSource::Image { image, sub_path } => {
            let path = mount.container_path.as_str();
            let volume = record
                .image_volumes
                .iter()
                .find(|v| v.container_path == path);
            let mut image = image_spec(image);
            if let Some(volume) = volume {
                image.image.clone_from(&volume.image_id);
            }
            (String::new(), Some(image), sub_path.to_string())
        }
    };
    let propagation = match mount.propagation {
        Propagation::Private => v1::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    v1::Mount {
        container_path: mount.container_path.to_string(),
        host_path,
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        uid_mappings: mount
            .mapping
            .as_ref()
            .map_or_else(Vec::new, |m| mapping_messages(&m.uids)),
        gid_mappings: mount
            .mapping
            .as_ref()
            .map_or_else(Vec::new, |m| mapping_messages(&m.gids)),
        recursive_read_only: mount.recursive_read_only,
        image,
        image_sub_path,
        mount_options: mount.options.iter().map(|o| o.name().to_owned()).collect(),
    }
}

fn resources(r: &Resources) -> v1::LinuxContainerResources {
    let signed = |value: Option<u64>| value.and_then(|v| i64::try_from(v).ok()).unwrap_or(0);
    v1::LinuxContainerResources {
        cpu_period: signed(r.cpu_period_us),
        cpu_quota: r.cpu_quota_us.unwrap_or(0),
        cpu_shares: signed(r.cpu_shares),
        memory_limit_in_bytes: r.memory_bytes.unwrap_or(0),
        oom_score_adj: r.oom_score_adj.into(),
        cpuset_cpus: r.cpuset_cpus.clone(),
        cpuset_mems: r.cpuset_mems.clone(),
        hugepage_limits: r
            .hugepages
            .iter()
            .map(|h| v1::HugepageLimit {
                page_size: h.page_size.clone(),
                limit: h.limit,
            })
            .collect(),
        unified: r.unified.clone().into_iter().collect(),
        memory_swap_limit_in_bytes: r.memory_swap_bytes.unwrap_or(0),
    }
}

async fn container_info(record: &ContainerRecord) -> HashMap<String, String> {
    let spec = tokio::fs::read(record.bundle.join("config.json"))
        .await
        .ok();
    let spec = spec.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let live = record.phase.may_live();
    let info = serde_json::json!({
        "sandboxID": record.pod_id,
        "pid": record.init.filter(|_| live).map_or(0, |p| p.pid),
        "conmonPid": record.conmon.filter(|_| live).map_or(0, |p| p.pid),
        "config": record.spec,
        "runtimeSpec": spec,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_being_made_or_removed_is_not_ready() {
        for phase in [PodPhase::Creating, PodPhase::NotReady, PodPhase::Removing] {
            assert_eq!(pod_state(phase), v1::PodSandboxState::SandboxNotready);
        }
    }

    #[test]
    fn every_signal_has_a_name_in_cri() {
        assert_eq!(stop_signal(15), v1::Signal::Sigterm);
        assert_eq!(stop_signal(9), v1::Signal::Sigkill);
        assert_eq!(stop_signal(0), v1::Signal::RuntimeDefault);
    }
}
