//! What every part of the daemon shares, put together once at start.

mod assemble;
mod backends;
mod choice;
#[cfg(test)]
mod fixture;
mod parts;
mod paths;
mod proxmox;
mod registries;
mod status;
mod storage;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use nexcage_cni::Cni;
use nexcage_config::Config;
use nexcage_image_store::ImageStore;
use nexcage_oci_runtime::OciRuntime;
use nexcage_sandbox::CgroupTree;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use assemble::AssembleError;
pub(crate) use assemble::assemble;
pub(crate) use backends::Backends;
#[cfg(test)]
pub(crate) use fixture::Fixture;
pub(crate) use parts::cgroup_tree;
pub(crate) use parts::cni;
pub(crate) use parts::find_node;
pub(crate) use parts::lxc_options;
pub(crate) use paths::Paths;
pub(crate) use proxmox::ProxmoxNode;
pub(crate) use status::Condition;
pub(crate) use status::conditions;
pub(crate) use status::proxmox_ready;
pub(crate) use status::proxmox_user_namespaces;
pub(crate) use storage::Outlook as StorageOutlook;
pub(crate) use storage::outlook as storage_outlook;

use crate::containers::{ContainerRecord, NodeFacts};
use crate::error::{Chain, OpError};
use crate::inflight::Inflight;
use crate::inventory::Inventory;
use crate::node::Node;
use crate::store::Store;

/// The daemon's core. One exists; it is shared as `Arc<Runtime>`.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) config: Config,
    pub(crate) paths: Paths,
    pub(crate) node: Node,
    /// What the node gives to every container.
    pub(crate) container_facts: NodeFacts,
    pub(crate) store: Store,
    pub(crate) inventory: Inventory,
    /// Creations of pods and containers under way.
    pub(crate) creations: Inflight,
    pub(crate) images: ImageStore,
    /// Why the storage driver is the one it is.
    pub(crate) storage_reason: String,
    pub(crate) backends: Backends,
    /// Held by whoever asks how Proxmox is.
    proxmox_turn: Arc<Mutex<()>>,
    pub(crate) cgroups: Arc<CgroupTree>,
    pub(crate) cni: Cni,
    pub(crate) oci: OciRuntime,
    /// Everything that runs beside the requests; the shutdown waits for it.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the daemon ends.
    pub(crate) stopping: CancellationToken,
    collect: Arc<Notify>,
}

impl Runtime {
    /// Runs a change in a task of its own: a client that hangs up does not leave half of it.
    pub(crate) async fn detached<T, F>(&self, change: F) -> Result<T, OpError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, OpError>> + Send + 'static,
    {
        self.tasks
            .spawn(change)
            .await
            .map_err(OpError::step("the operation was interrupted"))?
    }

    /// Wants layers removed that nothing needs any more. Returns at once.
    pub(crate) fn collect_images(&self) {
        self.collect.notify_one();
    }

    /// Asks CNI plugins again, from time to time, for what they would not let go.
    pub(crate) fn spawn_sweeper(self: &Arc<Self>) {
        const EVERY: Duration = Duration::from_secs(300);
        let every = nexcage_failpoint::interval(EVERY);
        let runtime = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    // Cancel-safe: a timer.
                    () = tokio::time::sleep(every) => {}
                    // Cancel-safe per docs on `CancellationToken::cancelled`.
                    () = runtime.stopping.cancelled() => return,
                }
                crate::reconcile::sweep_networks(&runtime).await;
            }
        });
    }

    /// Serves [`collect_images`](Self::collect_images) until the daemon ends.
    pub(crate) fn spawn_collector(self: &Arc<Self>) {
        /// Removing a pod removes its containers one after the other; one collection serves all.
        const GATHER: Duration = Duration::from_secs(2);
        let runtime = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    // Cancel-safe per docs on `Notify::notified`: a permit not taken stays.
                    () = runtime.collect.notified() => {}
                    // Cancel-safe per docs on `CancellationToken::cancelled`.
                    () = runtime.stopping.cancelled() => return,
                }
                tokio::select! {
                    // Cancel-safe: a timer.
                    () = tokio::time::sleep(GATHER) => {}
                    // Cancel-safe per docs on `CancellationToken::cancelled`.
                    () = runtime.stopping.cancelled() => return,
                }
                if let Err(error) = runtime.images.collect().await {
                    tracing::warn!(error = %Chain(&error), "cannot remove unused layers");
                }
            }
        });
    }

    /// The cgroup v2 directory of a container.
    pub(crate) fn container_cgroup(
        &self,
        record: &ContainerRecord,
    ) -> Result<camino::Utf8PathBuf, OpError> {
        let pod = self
            .inventory
            .pod_by_id(&record.pod_id)
            .ok_or_else(|| OpError::no_pod(&record.pod_id))?;
        let running = pod.record().running.clone();
        let running = running
            .ok_or_else(|| OpError::State(format!("pod sandbox {} never ran", record.pod_id)))?;
        Ok(running.cgroups.container.join(&record.id))
    }
}
