//! Whether the daemon can do its work: what `Status` answers, found by looking.

use super::Runtime;
use crate::containers::ensure_default_profile;
use crate::error::Chain;

/// One condition of CRI's `RuntimeStatus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    /// `RuntimeReady` or `NetworkReady`.
    pub(crate) name: &'static str,
    /// Why not, as one word and one sentence; `None` when all is well.
    pub(crate) problem: Option<(&'static str, String)>,
}

/// Checks everything that pods need.
pub(crate) async fn conditions(runtime: &Runtime) -> Vec<Condition> {
    let (runtime_ready, network_ready) =
        tokio::join!(runtime_problem(runtime), network_problem(runtime));
    vec![
        Condition {
            name: "RuntimeReady",
            problem: runtime_ready,
        },
        Condition {
            name: "NetworkReady",
            problem: network_ready,
        },
    ]
}

async fn runtime_problem(runtime: &Runtime) -> Option<(&'static str, String)> {
    if let Err(e) = runtime.store.check().await {
        return Some(("DatabaseNotReady", Chain(&e).to_string()));
    }
    if let Err(e) = runtime.images.layers().check().await {
        return Some(("StorageNotReady", Chain(&e).to_string()));
    }
    if let Err(e) = runtime.backends.check_default().await {
        return Some(("SandboxBackendNotReady", Chain(&e).to_string()));
    }
    // Without it every container is refused that does not ask to be unconfined.
    if let Err(e) = ensure_default_profile(&runtime.config.security).await {
        return Some(("AppArmorNotReady", Chain(&e).to_string()));
    }
    None
}

async fn network_problem(runtime: &Runtime) -> Option<(&'static str, String)> {
    match runtime.cni.status().await {
        Ok(_) => None,
        Err(e) => Some(("NetworkPluginNotReady", Chain(&e).to_string())),
    }
}
