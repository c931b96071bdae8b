//! RunPodSandbox: the thread through the whole house.

use std::sync::Arc;

use nexcage_sandbox::{
    PodCgroups, PodResources, RunningSandbox, SandboxId, SandboxSpec, UserNamespace,
};

use super::files::PodFiles;
use super::limits::{self, Above};
use super::network::Network;
use super::record::{PodPhase, PodRecord};
use super::spec::PodSpec;
use super::{Pod, network, stop, watch};
use crate::apparmor;
use crate::containers::rootfs_properties;
use crate::ended;
use crate::error::OpError;
use crate::ids::new_id;
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Sysctls that containerd and CRI-O set in every pod with a network of its own: any user may ping and
/// listen on low ports there.
const NETWORK_SYSCTLS: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// Makes a pod, or finds the one a first call with the same name and attempt made.
pub(crate) async fn run_pod(
    runtime: &Arc<Runtime>,
    spec: PodSpec,
    handler: String,
) -> Result<String, Arc<OpError>> {
    let key = spec.key();
    let task = Arc::clone(runtime);
    let create = async move { find_or_create(&task, spec, handler).await };
    runtime.creations.run(format!("pod {key}"), create).await
}

async fn find_or_create(
    runtime: &Arc<Runtime>,
    spec: PodSpec,
    handler: String,
) -> Result<String, OpError> {
    if let Some(pod) = runtime.inventory.pod_by_key(&spec.key()) {
        return existing(runtime, &pod).await;
    }
    let record = plan(runtime, spec, handler).await?;
    runtime.store.add_pod(&record).await?;
    let pod = Pod::new(record);
    // Before anybody can find it: a pod that is being made, and that nobody holds, is taken for a wreck.
    let _changing = pod.lock.lock().await;
    runtime.inventory.add_pod(Arc::clone(&pod));
    nexcage_failpoint::hit("pod.recorded");
    match start(runtime, &pod).await {
        Ok(()) => {
            watch::spawn(runtime, &pod);
            tracing::info!(
                pod = pod.id(),
                name = pod.record().spec.key(),
                "pod sandbox runs"
            );
            Ok(pod.id())
        }
        Err(error) => {
            // Whatever the failure was, the caller must find nothing; what cannot be removed now is
            // still on record, and the next start or removal tries again.
            if let Err(left) = stop::remove_everything(runtime, &pod).await {
                tracing::error!(
                    pod = pod.id(),
                    error = %crate::error::Chain(&left),
                    "cannot clean up after a failed start"
                );
            }
            Err(error)
        }
    }
}

/// A pod of this name is there already.
async fn existing(runtime: &Arc<Runtime>, pod: &Arc<Pod>) -> Result<String, OpError> {
    let record = pod.record();
    match record.phase {
        PodPhase::Ready => Ok(record.id.clone()),
        // The remains of a creation that failed and could not be cleaned up: try again.
        PodPhase::Creating | PodPhase::Removing => {
            let _changing = pod.lock.lock().await;
            stop::remove_everything(runtime, pod).await?;
            Err(OpError::State(format!(
                "an earlier attempt to make pod sandbox {} was just cleaned up; try again",
                record.spec.key()
            )))
        }
        PodPhase::NotReady => Err(OpError::State(format!(
            "pod sandbox {} exists as {} and has ended; remove it or use the next attempt number",
            record.spec.key(),
            record.id
        ))),
    }
}

/// Decides everything about the pod before anything is done.
async fn plan(runtime: &Runtime, spec: PodSpec, handler: String) -> Result<PodRecord, OpError> {
    let backend = runtime.backends.choose(&handler, &spec.annotations).await?;
    // Now, and not when the first container is made: a pod that asks for the impossible is refused as a whole.
    rootfs_properties(runtime, &spec.annotations, &handler)?;
    let id = new_id();
    let mut sandbox = sandbox_spec(runtime, &id, &spec, &handler);
    sandbox.resources = limits::effective(
        &spec.resources,
        &spec.overhead,
        above(runtime, &spec, &sandbox).await,
    );
    backend
        .validate(&sandbox)
        .map_err(|e| runtime.backends.refusal("cannot start the pod sandbox", e))?;
    Ok(PodRecord {
        netns: network::has_own(spec.network).then(|| runtime.paths.netns(&id)),
        phase: PodPhase::Creating,
        created_at: crate::node::now(),
        backend: backend.name().to_owned(),
        limits_pending: false,
        running: None,
        ips: Vec::new(),
        cni_result: None,
        ended: None,
        torn_down: false,
        id,
        spec,
        handler,
        sandbox,
    })
}

/// What kubelet limits in its own cgroup of the pod.
async fn above(runtime: &Runtime, spec: &PodSpec, sandbox: &SandboxSpec) -> Above {
    if !runtime.node.limits() || !limits::is_kubelets(&spec.cgroup_parent, &spec.uid) {
        return Above::UNKNOWN;
    }
    // A parent that cannot be is refused by the backend, by name.
    match runtime.cgroups.locate(sandbox) {
        Ok(PodCgroups { pod, .. }) => Above::read(pod.parent().unwrap_or(&pod)).await,
        Err(_) => Above::UNKNOWN,
    }
}

/// All but the limits.
fn sandbox_spec(runtime: &Runtime, id: &str, spec: &PodSpec, handler: &str) -> SandboxSpec {
    let mut sysctls = spec.sysctls.clone();
    if network::has_own(spec.network) && spec.user_namespace.is_none() {
        for (name, value) in NETWORK_SYSCTLS {
            sysctls
                .entry(name.to_owned())
                .or_insert_with(|| value.to_owned());
        }
    }
    let hostname = if spec.hostname.is_empty() {
        crate::node::hostname()
    } else {
        spec.hostname.clone()
    };
    SandboxSpec {
        id: SandboxId(id.to_owned()),
        name: spec.name.clone(),
        namespace: spec.namespace.clone(),
        uid: spec.uid.clone(),
        hostname,
        cgroup_parent: spec.cgroup_parent.clone(),
        network: spec.network,
        netns: network::is_made_before(spec).then(|| runtime.paths.netns(id)),
        ipc: spec.ipc,
        pid: spec.pid,
        user_namespace: spec.user_namespace.clone(),
        privileged: spec.privileged,
        sysctls,
        resources: PodResources::default(),
        annotations: allowed_annotations(runtime, spec, handler),
        run_dir: runtime.paths.pod(id),
    }
}

/// Annotations that the runtime handler lets through to the backend.
fn allowed_annotations(
    runtime: &Runtime,
    spec: &PodSpec,
    handler: &str,
) -> std::collections::BTreeMap<String, String> {
    let Some(handler) = runtime.config.handler(handler) else {
        return Default::default();
    };
    let all = spec.annotations.iter();
    all.filter(|(key, _)| handler.allows_annotation(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Files, sandbox, network, and the commit that makes the pod visible.
async fn start(runtime: &Arc<Runtime>, pod: &Arc<Pod>) -> Result<(), OpError> {
    let record = pod.record();
    // Steps that do not need each other are done at once, here and below. Both run to their end, so that what has to be
    // cleaned up after a failure of one is not still being made by the other.
    let (files, namespace) = tokio::join!(make_files(&record), make_namespace(&record));
    files.and(namespace)?;
    let (running, network) = match record.sandbox.netns {
        Some(_) => start_beside_network(runtime, &record).await?,
        None => start_before_network(runtime, &record).await?,
    };
    pod.commit(&runtime.store, Lasting::Disk, |r| {
        r.phase = PodPhase::Ready;
        r.running = Some(running);
        r.ips = network.ips;
        r.cni_result = network.cni_result;
    })
    .await?;
    nexcage_failpoint::hit("pod.ready");
    Ok(())
}

async fn start_beside_network(
    runtime: &Runtime,
    record: &PodRecord,
) -> Result<(RunningSandbox, Network), OpError> {
    // The two slow steps: CNI needs the namespace, not what runs in it.
    let (running, network) = tokio::join!(
        start_sandbox(runtime, record),
        network::attach(runtime, record)
    );
    let running = running?;
    match network {
        Ok(network) => Ok((running, network)),
        Err(error) => Err(ended::with_sandbox(error, record, &running).await),
    }
}

/// Makes the pod's network namespace, unless the sandbox does.
async fn make_namespace(record: &PodRecord) -> Result<(), OpError> {
    match record.sandbox.netns {
        Some(_) => network::make(record).await,
        None => Ok(()),
    }
}

/// For a pod with the host's network, and one whose network namespace belongs to its own user namespace: the sandbox
/// makes that.
async fn start_before_network(
    runtime: &Runtime,
    record: &PodRecord,
) -> Result<(RunningSandbox, Network), OpError> {
    let running = start_sandbox(runtime, record).await?;
    let network = match network::pin(record, &running).await {
        Ok(()) => network::attach(runtime, record).await,
        Err(error) => Err(error),
    };
    match network {
        Ok(network) => Ok((running, network)),
        Err(error) => Err(ended::with_sandbox(error, record, &running).await),
    }
}

async fn start_sandbox(runtime: &Runtime, record: &PodRecord) -> Result<RunningSandbox, OpError> {
    let backend = runtime.backends.get(&record.backend)?;
    apparmor::ensure_for_sandboxes(&runtime.config.security)
        .await
        .map_err(OpError::step("the pod sandbox cannot be confined"))?;
    let started = backend.start(&record.sandbox).await;
    let running =
        started.map_err(|e| runtime.backends.refusal("cannot start the pod sandbox", e))?;
    nexcage_failpoint::hit("pod.sandbox-started");
    Ok(running)
}

async fn make_files(record: &PodRecord) -> Result<(), OpError> {
    let files = PodFiles::new(&record.sandbox.run_dir);
    let (dns, hostname) = (record.spec.dns.clone(), record.sandbox.hostname.clone());
    let own_ipc = record.spec.ipc == nexcage_sandbox::NamespaceMode::Pod;
    let root = record
        .spec
        .user_namespace
        .as_ref()
        .map_or(0, UserNamespace::root);
    let logs = record.spec.log_directory.clone();
    tokio::task::spawn_blocking(move || {
        if !logs.is_empty() {
            std::fs::create_dir_all(&logs)?;
        }
        files.create(dns.as_ref(), &hostname, own_ipc.then_some(root))
    })
    .await
    .map_err(OpError::step("making the pod's files was interrupted"))?
    .map_err(OpError::step(format!(
        "cannot make the pod's files in {}",
        record.sandbox.run_dir
    )))?;
    nexcage_failpoint::hit("pod.files-made");
    Ok(())
}
