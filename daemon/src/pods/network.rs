//! A pod's network: pinned namespace, then CNI.

use nexcage_cni::Attachment;
use nexcage_sandbox::{
    NamespaceMode, RunningSandbox, enable_loopback, make_netns, pin_netns, unpin_netns,
};

use super::record::PodRecord;
use super::spec::PodSpec;
use crate::error::OpError;
use crate::runtime::Runtime;

/// The interface that CNI makes in a pod.
pub(crate) const INTERFACE: &str = "eth0";

/// What a pod's network turned out to be.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) ips: Vec<std::net::IpAddr>,
    pub(crate) cni_result: Option<serde_json::Value>,
}

/// Makes and pins the pod's network namespace. When it fails, or anything after it, [`tear_down`] removes
/// what was begun.
pub(crate) async fn make(pod: &PodRecord) -> Result<(), OpError> {
    let Some(netns) = &pod.netns else {
        return Ok(());
    };
    make_netns(netns)
        .await
        .map_err(OpError::step("cannot make the pod's network namespace"))?;
    nexcage_failpoint::hit("pod.netns-made");
    Ok(())
}

/// Pins the network namespace that the sandbox made, and switches its `lo` on.
pub(crate) async fn pin(pod: &PodRecord, running: &RunningSandbox) -> Result<(), OpError> {
    let Some(netns) = &pod.netns else {
        return Ok(());
    };
    pin_netns(running.init.pid, netns)
        .await
        .map_err(OpError::step("cannot pin the pod's network namespace"))?;
    enable_loopback(netns).await.map_err(OpError::step(
        "cannot make the pod's network namespace ready",
    ))?;
    nexcage_failpoint::hit("pod.netns-pinned");
    Ok(())
}

/// Attaches the pod's network namespace by CNI.
pub(crate) async fn attach(runtime: &Runtime, pod: &PodRecord) -> Result<Network, OpError> {
    if pod.netns.is_none() {
        return Ok(Network::default());
    }
    let attached = runtime
        .cni
        .add(&attachment(pod))
        .await
        .map_err(OpError::step("cannot attach the pod to its network"))?;
    nexcage_failpoint::hit("pod.network-attached");
    Ok(Network {
        ips: attached.ips,
        cni_result: Some(attached.result),
    })
}

/// Detaches and unpins. Succeeds when the namespace, the CNI configuration or both are gone. A plugin
/// that fails is asked again once, and then not allowed to keep the pod from ending: what it still holds
/// stays in CNI's cache, and [`reconcile::sweep_networks`](crate::reconcile::sweep_networks) goes on asking.
pub(crate) async fn tear_down(runtime: &Runtime, pod: &PodRecord) -> Result<(), OpError> {
    let Some(netns) = &pod.netns else {
        return Ok(());
    };
    let attachment = attachment(pod);
    let mut detached = runtime.cni.del(&attachment).await;
    if detached
        .as_ref()
        .is_err_and(nexcage_cni::CniError::is_retryable)
    {
        detached = runtime.cni.del(&attachment).await;
    }
    if let Err(error) = detached {
        tracing::warn!(
            pod = pod.id,
            error = %crate::error::Chain(&error),
            "a CNI plugin could not detach the pod; going on without it"
        );
    }
    unpin_netns(netns).await.map_err(OpError::step(format!(
        "cannot unpin the network namespace at {netns}"
    )))?;
    nexcage_failpoint::hit("pod.network-detached");
    Ok(())
}

/// Pins the namespace again if the pin is gone but the sandbox lives: without a namespace, plugins skip a part of
/// what they should undo. To be called while the sandbox still runs.
pub(crate) async fn restore_pin(pod: &PodRecord) {
    let (Some(netns), Some(running)) = (&pod.netns, &pod.running) else {
        return;
    };
    let init = running.init;
    if !crate::pidfd::is_alive(init.pid, init.start_time) {
        return;
    }
    // Nothing is done where the pin is what it should be.
    if let Err(error) = pin_netns(init.pid, netns).await {
        tracing::debug!(pod = pod.id, error = %crate::error::Chain(&error), "cannot pin the network namespace again");
    }
}

/// The arguments every CNI plugin of a Kubernetes node expects, and no others.
fn attachment(pod: &PodRecord) -> Attachment {
    let arg = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut capabilities = serde_json::Map::new();
    let ports = pod.spec.cni_port_mappings();
    if !ports.is_empty() {
        capabilities.insert("portMappings".into(), ports.into());
    }
    if let Some(dns) = &pod.spec.dns {
        capabilities.insert(
            "dns".into(),
            serde_json::json!({
                "servers": dns.servers, "searches": dns.searches, "options": dns.options,
            }),
        );
    }
    Attachment {
        container_id: pod.id.clone(),
        netns: pod.netns.clone(),
        ifname: INTERFACE.into(),
        args: vec![
            arg("IgnoreUnknown", "1"),
            arg("K8S_POD_NAMESPACE", &pod.spec.namespace),
            arg("K8S_POD_NAME", &pod.spec.name),
            arg("K8S_POD_INFRA_CONTAINER_ID", &pod.id),
            arg("K8S_POD_UID", &pod.spec.uid),
        ],
        capabilities,
    }
}

/// Whether a pod's network namespace is made before its sandbox: it has one of its own, which belongs to the host's user
/// namespace.
pub(crate) fn is_made_before(spec: &PodSpec) -> bool {
    has_own(spec.network) && spec.user_namespace.is_none()
}

/// Whether a pod has a network of its own.
pub(crate) fn has_own(mode: NamespaceMode) -> bool {
    mode == NamespaceMode::Pod
}
