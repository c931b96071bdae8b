//! Putting the daemon together from its configuration.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use nexcage_command::{Program, ProgramError};
use nexcage_config::{Backend, Config};
use nexcage_image_store::{ImageStore, ImageStoreOptions, LayerStore};
use nexcage_lxc::{LxcBackend, LxcOptions};
use nexcage_oci_runtime::{CgroupManager, OciRuntime, OciRuntimeOptions};
use nexcage_sandbox::{CgroupTree, HostBackend, HostOptions, SandboxBackend, ensure_rootfs};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::parts::{cgroup_tree, cni, find_node, lxc_options};
use super::paths::OciPaths;
use super::proxmox::ProxmoxNode;
use super::registries::registries;
use super::{Backends, Paths, Runtime, storage};
use crate::apparmor;
use crate::containers::{node_facts, raise_file_limit};
use crate::error::{BoxError, Chain};
use crate::inflight::Inflight;
use crate::inventory::Inventory;
use crate::store::Store;

/// Time a call of crun or conmon has. A create takes 20 ms on an idle machine; a minute is a
/// machine that thrashes.
const OCI_DEADLINE: Duration = Duration::from_secs(60);

/// The daemon cannot be put together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssembleError {
    /// A program is missing.
    #[error("a program that nexcage drives is missing")]
    Program(#[from] ProgramError),
    /// A step failed.
    #[error("{doing}")]
    Step {
        doing: String,
        #[source]
        source: BoxError,
    },
}

impl AssembleError {
    pub(super) fn step<E: Into<BoxError>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::Step {
            doing,
            source: source.into(),
        }
    }
}

/// Opens every store, finds every program, and connects what belongs together. Nothing is started.
///
/// # Errors
///
/// [`AssembleError`] names what is missing.
pub(crate) async fn assemble(config: Config) -> Result<Arc<Runtime>, AssembleError> {
    let paths = Paths::new(&config);
    make_directories(&paths)?;
    let node = find_node(&config).map_err(AssembleError::step("cannot find out about cgroups"))?;
    if !node.limits() {
        tracing::warn!(
            "this host mounts cgroup v1 controllers: pods get no limits and their memory is \
             estimated; boot with systemd.unified_cgroup_hierarchy=1 to change that"
        );
    }
    let store = Store::open(&paths.database()).map_err(AssembleError::step(format!(
        "cannot open {}",
        paths.database()
    )))?;
    let storage = storage::open(&config, &paths, &store).await?;
    let images = open_images(&config, &paths, storage.layers).await?;
    let cgroup_manager = if node.limits() {
        CgroupManager::Cgroupfs
    } else {
        CgroupManager::Disabled
    };
    let oci = oci_runtime(paths.oci(), cgroup_manager)?;
    let cgroups = cgroup_tree(&config, &node);
    let backends = make_backends(&config, &paths, &cgroups, &store).await?;
    let tasks = TaskTracker::new();
    let container_facts = node_facts(&config).map_err(AssembleError::step(
        "cannot find out what containers may do on this node",
    ))?;
    raise_file_limit();
    if let Err(error) = apparmor::load(&config.security).await {
        // What does without is started; all else and `Status` say the same.
        tracing::warn!(error = %Chain(&error), "pods and containers cannot be confined by AppArmor");
    }
    Ok(Arc::new(Runtime {
        cni: cni(&config),
        creations: Inflight::new(tasks.clone()),
        inventory: Inventory::default(),
        stopping: CancellationToken::new(),
        collect: Arc::new(Notify::new()),
        config,
        paths,
        node,
        container_facts,
        store,
        images,
        storage_reason: storage.reason,
        backends,
        proxmox_turn: Arc::default(),
        cgroups,
        oci,
        tasks,
    }))
}

fn make_directories(paths: &Paths) -> Result<(), AssembleError> {
    for (dir, mode) in paths.directories() {
        let made = std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)));
        made.map_err(AssembleError::step(format!(
            "cannot make the directory {dir}"
        )))?;
    }
    Ok(())
}

async fn open_images(
    config: &Config,
    paths: &Paths,
    layers: Arc<dyn LayerStore>,
) -> Result<ImageStore, AssembleError> {
    let images = &config.images;
    let options = ImageStoreOptions {
        registries: registries(&config.images)
            .map_err(AssembleError::step("images.registries cannot be used"))?,
        max_parallel_downloads: usize::try_from(images.max_parallel_downloads).unwrap_or(1),
        progress_timeout: Duration::from_secs(images.progress_timeout_seconds),
        max_layer_bytes: images.max_layer_bytes,
        pinned: images.pinned.clone(),
        credentials_file: images.credentials_file.as_ref().map(|f| f.to_path_buf()),
        ..ImageStoreOptions::new(paths.images(), layers)
    };
    ImageStore::open(options)
        .await
        .map_err(AssembleError::step(format!(
            "cannot open the image store in {}",
            paths.images()
        )))
}

fn oci_runtime(
    paths: OciPaths,
    cgroup_manager: CgroupManager,
) -> Result<OciRuntime, AssembleError> {
    Ok(OciRuntime::new(OciRuntimeOptions {
        crun: Program::find("crun", "crun")?,
        conmon: Program::find("conmon", "conmon")?,
        helper: Program::myself()?,
        root: paths.root,
        exit_dir: paths.exits,
        monitor_dir: paths.monitors,
        cgroup_manager,
        deadline: OCI_DEADLINE,
    }))
}

async fn make_backends(
    config: &Config,
    paths: &Paths,
    cgroups: &Arc<CgroupTree>,
    store: &Store,
) -> Result<Backends, AssembleError> {
    let rootfs = paths.sandbox_rootfs();
    ensure_rootfs(&rootfs, &Program::find("catatonit", "catatonit")?)
        .await
        .map_err(AssembleError::step(format!(
            "cannot make the sandbox's root in {rootfs}"
        )))?;
    let options = lxc_options(config, paths)?;
    let proxmox = make_proxmox(config, store, options.clone(), cgroups).await?;
    let lxc = LxcBackend::new(options, Arc::clone(cgroups));
    // Sandboxes of the host backend place themselves: crun's own cgroups are for containers.
    let sandboxes = oci_runtime(paths.oci_sandboxes(), CgroupManager::Disabled)?;
    let options = HostOptions {
        rootfs,
        holder: Program::myself()?,
    };
    let host = HostBackend::new(options, Arc::clone(cgroups), sandboxes);
    Ok(Backends::new(
        Arc::new(lxc),
        Arc::new(host),
        proxmox,
        config.clone(),
    ))
}

/// The backend of Proxmox where it is configured or found; and where a pod was made by it, which must be ended some day.
async fn make_proxmox(
    config: &Config,
    store: &Store,
    lxc: LxcOptions,
    cgroups: &Arc<CgroupTree>,
) -> Result<Option<Arc<dyn SandboxBackend>>, AssembleError> {
    let (looked_at, of) = (config.clone(), "cannot look for Proxmox");
    let node = tokio::task::spawn_blocking(move || ProxmoxNode::find(&looked_at))
        .await
        .map_err(AssembleError::step(of))?;
    let (pods, _) = store.load().await.map_err(AssembleError::step(of))?;
    let name = Backend::Proxmox.name();
    if !node.configured && !node.mounted && pods.iter().all(|pod| pod.backend != name) {
        return Ok(None);
    }
    tracing::info!(
        node = node.name,
        pve_dir = %node.settings.pve_dir,
        mounted = node.mounted,
        "this machine is a node of Proxmox VE"
    );
    Ok(Some(Arc::new(node.backend(lxc, Arc::clone(cgroups))?)))
}
