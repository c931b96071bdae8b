//! CreateContainer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::ImageRecord;
use nexcage_oci_runtime::{CreateContainer, Created};
use nexcage_sandbox::{RunningSandbox, UserNamespace};
use oci_spec::runtime::Spec;

use super::config::{AppArmorProfile, ContainerSpec, PidMode, SeccompProfile};
use super::facts::apparmor_facts;
use super::record::{ContainerPhase, ContainerRecord, ProcessId, RunsAs};
use super::seccomp::{self, Profile};
use super::spec::{self, NodeFacts, SandboxFacts, SpecInput};
use super::users::{self, ResolvedUser};
use super::{Container, devices, remove, rootfs, user_namespace, volumes, watch};
use crate::apparmor;
use crate::cri::InvalidField;
use crate::ended;
use crate::error::{Chain, Kind, OpError};
use crate::ids::new_id;
use crate::node::now;
use crate::pidfd;
use crate::pods::{Pod, PodFiles, PodRecord};
use crate::runtime::Runtime;
use crate::store::Lasting;

/// Makes a container in a pod, or finds the one a first call with the same name and attempt made.
pub(crate) async fn create_container(
    runtime: &Arc<Runtime>,
    pod_id: &str,
    spec: ContainerSpec,
) -> Result<String, Arc<OpError>> {
    let pod = runtime.inventory.pod(pod_id)?;
    let key = format!("container {}/{}", pod.id(), spec.key());
    let task = Arc::clone(runtime);
    runtime
        .creations
        .run(key, async move { find_or_create(&task, &pod, spec).await })
        .await
}

async fn find_or_create(
    runtime: &Arc<Runtime>,
    pod: &Arc<Pod>,
    spec: ContainerSpec,
) -> Result<String, OpError> {
    let _changing = pod.lock.lock().await;
    if let Some(id) = existing(runtime, pod, &spec).await? {
        return Ok(id);
    }
    if !pod.record().phase.can_hold_containers() {
        return Err(OpError::State(format!(
            "pod sandbox {} is not ready",
            pod.id()
        )));
    }
    user_namespace::agree(&spec, pod.record().spec.user_namespace.as_ref())?;
    let image = find_image(runtime, &spec.image.image).await?;
    let record = plan(runtime, pod, spec, &image).await?;
    runtime.store.add_container(&record).await?;
    let container = Container::new(record);
    runtime.inventory.add_container(Arc::clone(&container));
    nexcage_failpoint::hit("container.recorded");
    match make(runtime, &pod.record(), &container, &image).await {
        Ok(()) => {
            watch::spawn(runtime, &container);
            tracing::info!(
                container = container.id(),
                pod = pod.id(),
                "container created"
            );
            Ok(container.id())
        }
        Err(error) => {
            if let Err(left) = remove::remove_everything(runtime, &container).await {
                tracing::error!(
                    container = container.id(),
                    error = %Chain(&left),
                    "cannot clean up after a failed creation"
                );
            }
            Err(ended::with_pod(error, &pod.record()).await)
        }
    }
}

/// The container that a first call made. The remains of one that failed are removed first.
async fn existing(
    runtime: &Arc<Runtime>,
    pod: &Arc<Pod>,
    spec: &ContainerSpec,
) -> Result<Option<String>, OpError> {
    let same = runtime
        .inventory
        .containers_of(&pod.id())
        .into_iter()
        .find(|c| c.record().spec.key() == spec.key());
    let Some(container) = same else {
        return Ok(None);
    };
    match container.record().phase {
        ContainerPhase::Creating | ContainerPhase::Removing => {
            remove::remove_everything(runtime, &container).await?;
            Ok(None)
        }
        ContainerPhase::Created
        | ContainerPhase::Running
        | ContainerPhase::Restoring
        | ContainerPhase::Exited => Ok(Some(container.id())),
    }
}

async fn find_image(runtime: &Runtime, name: &str) -> Result<ImageRecord, OpError> {
    let found = runtime.images.image(name).await;
    found
        .map_err(OpError::step("cannot look up the image"))?
        .ok_or_else(|| OpError::NotFound {
            kind: Kind::Image,
            name: name.to_owned(),
        })
}

/// Decides everything about the container before anything is done.
async fn plan(
    runtime: &Runtime,
    pod: &Arc<Pod>,
    spec: ContainerSpec,
    image: &ImageRecord,
) -> Result<ContainerRecord, OpError> {
    let pod = pod.record();
    let id = new_id();
    let image_config = image.config.config().as_ref();
    let stop_signal = spec::stop_signal(&spec, image_config)?;
    let logs = match pod.spec.log_directory.as_str() {
        "" => runtime.paths.logs(&pod.id),
        dir => Utf8PathBuf::from(dir),
    };
    let log_path = match spec.log_path.as_str() {
        "" => runtime
            .paths
            .logs(&pod.id)
            .join(format!("{}_{}.log", spec.name, spec.attempt)),
        relative => logs.join(relative),
    };
    let image_volumes = volumes::plan(runtime, &id, &spec).await?;
    Ok(ContainerRecord {
        phase: ContainerPhase::Creating,
        pod_id: pod.id.clone(),
        created_at: now(),
        started_at: 0,
        exit: None,
        image_id: image.id.to_string(),
        log_path,
        bundle: runtime.paths.bundle(&id),
        init: None,
        conmon: None,
        stop_signal: stop_signal.number(),
        user: RunsAs::default(),
        restoring: None,
        image_volumes,
        spec,
        id,
    })
}

/// Root filesystem, specification, bundle, OCI container, and the commit that makes it visible.
async fn make(
    runtime: &Arc<Runtime>,
    pod: &PodRecord,
    container: &Arc<Container>,
    image: &ImageRecord,
) -> Result<(), OpError> {
    let record = container.record();
    let properties = rootfs::properties(runtime, &pod.spec.annotations, &pod.handler)?;
    rootfs::make(runtime, &record, image, &properties).await?;
    let rootfs = rootfs::mount(runtime, pod, &record).await?;
    nexcage_failpoint::hit("container.rootfs-mounted");
    let volumes = volumes::mount(runtime, pod, &record).await?;
    ensure_profile(runtime, &record).await?;
    let facts = Facts::gather(runtime, pod, &record)?;
    let node = Arc::clone(runtime);
    let image_config = image.config.config().clone();
    let bundled = tokio::task::spawn_blocking(move || {
        bundle(
            &node,
            &record,
            &facts,
            image_config.as_ref(),
            &rootfs,
            &volumes,
        )
    });
    let user = bundled
        .await
        .map_err(OpError::step("making the bundle was interrupted"))??;
    nexcage_failpoint::hit("container.bundled");
    let record = container.record();
    let created = create(runtime, pod, &record).await?;
    nexcage_failpoint::hit("container.created");
    let adopted = adopt(runtime, container, &created, |r| {
        r.phase = ContainerPhase::Created;
        r.user = RunsAs {
            uid: user.uid,
            gid: user.gid,
            groups: user.additional_gids,
        };
        true
    });
    let ((), adopted) = tokio::join!(rootfs::release(runtime, &record), adopted);
    adopted.map(drop)
}

/// Sees to it that the profile of those that ask for no other is loaded: they must not be started unconfined instead.
async fn ensure_profile(runtime: &Runtime, record: &ContainerRecord) -> Result<(), OpError> {
    let asked = &record.spec.security;
    match asked.apparmor {
        AppArmorProfile::Unset | AppArmorProfile::RuntimeDefault if !asked.privileged => {
            apparmor::ensure_for_containers(&runtime.config.security)
                .await
                .map_err(OpError::step("the container cannot be confined"))
        }
        _ => Ok(()),
    }
}

/// Writes down the processes of a created container, and with them what `change` says.
pub(super) async fn adopt(
    runtime: &Runtime,
    container: &Container,
    created: &Created,
    change: impl FnOnce(&mut ContainerRecord) -> bool,
) -> Result<Arc<ContainerRecord>, OpError> {
    let conmon_start = pidfd::start_time_of(created.conmon_pid);
    container
        .commit(&runtime.store, Lasting::Disk, |r| {
            r.init = Some(ProcessId {
                pid: created.pid,
                start_time: created.start_time,
            });
            // A conmon that is gone already is found out by the watcher: no process has start time 0.
            r.conmon = Some(ProcessId {
                pid: created.conmon_pid,
                start_time: conmon_start.unwrap_or(0),
            });
            change(r)
        })
        .await?;
    Ok(container.record())
}

/// What the specification needs from elsewhere in the daemon.
struct Facts {
    sandbox: SandboxFacts,
    cgroup: Option<Utf8PathBuf>,
    target_pid: Option<Utf8PathBuf>,
    /// The pod's user namespace and what it maps, if it has one.
    users: Option<(OwnedFd, UserNamespace)>,
}

impl Facts {
    fn gather(
        runtime: &Runtime,
        pod: &PodRecord,
        record: &ContainerRecord,
    ) -> Result<Self, OpError> {
        let running = running(pod)?;
        let cgroup = match (running.cgroups.controllers, runtime.node.cgroups.root()) {
            (true, Some(root)) => running
                .cgroups
                .container
                .strip_prefix(root)
                .ok()
                .map(|below| Utf8Path::new("/").join(below).join(&record.id)),
            _ => None,
        };
        let target_pid = match &record.spec.security.namespaces.pid {
            PidMode::Target(id) => Some(target_namespace(runtime, pod, id)?),
            _ => None,
        };
        Ok(Self {
            sandbox: sandbox_facts(pod, running.init.pid),
            cgroup,
            target_pid,
            users: user_namespace::open(pod)?.zip(pod.spec.user_namespace.clone()),
        })
    }
}

/// What the pod's backend gave back when it was started.
fn running(pod: &PodRecord) -> Result<&RunningSandbox, OpError> {
    let none = || OpError::State(format!("pod sandbox {} never ran", pod.id));
    pod.running.as_ref().ok_or_else(none)
}

fn sandbox_facts(pod: &PodRecord, init: u32) -> SandboxFacts {
    use nexcage_sandbox::NamespaceMode::Pod as Own;
    let files = PodFiles::new(&pod.sandbox.run_dir);
    let namespace = |name: &str| Utf8PathBuf::from(format!("/proc/{init}/ns/{name}"));
    let own_network = pod.spec.network == Own;
    let own_ipc = pod.spec.ipc == Own;
    SandboxFacts {
        hostname: pod.sandbox.hostname.clone(),
        privileged: pod.spec.privileged,
        network: own_network.then(|| namespace("net")),
        ipc: own_ipc.then(|| namespace("ipc")),
        user: pod.spec.user_namespace.as_ref().map(|_| namespace("user")),
        // As in containerd, who shares the host's network shares its name too.
        uts: own_network.then(|| namespace("uts")),
        pid: (pod.spec.pid == Own).then(|| namespace("pid")),
        shm: if own_ipc {
            files.shm()
        } else {
            "/dev/shm".into()
        },
        resolv_conf: Some(files.resolv_conf()),
        hostname_file: Some(files.hostname()),
        hosts: Some(files.hosts()),
    }
}

/// The PID namespace of another container of the same pod.
fn target_namespace(runtime: &Runtime, pod: &PodRecord, id: &str) -> Result<Utf8PathBuf, OpError> {
    const FIELD: &str = "config.linux.security_context.namespace_options.target_id";
    let invalid = |problem: &str| OpError::from(InvalidField::invalid(FIELD, problem));
    let target = runtime.inventory.container(id)?.record();
    if target.pod_id != pod.id {
        return Err(invalid("names a container of another pod"));
    }
    let init = target.init.filter(|_| target.phase.is_running());
    let init = init.ok_or_else(|| invalid("names a container that does not run"))?;
    Ok(format!("/proc/{}/ns/pid", init.pid).into())
}

/// Writes the bundle: `config.json`. Blocking.
fn bundle(
    runtime: &Runtime,
    record: &ContainerRecord,
    facts: &Facts,
    image: Option<&oci_spec::image::Config>,
    rootfs: &Utf8Path,
    volumes: &[Option<Utf8PathBuf>],
) -> Result<ResolvedUser, OpError> {
    let spec = &record.spec;
    let image_user = image.and_then(|c| c.user().clone()).unwrap_or_default();
    let user = users::resolve(rootfs, &image_user, &spec.security).map_err(no_such_user)?;
    let mount_sources = volumes::sources(spec, volumes)?;
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(OpError::step("cannot read the list of mounts"))?;
    spec::check_propagation(spec, &mount_sources, &mountinfo)?;
    if let Some((namespace, ids)) = &facts.users {
        user_namespace::has_ids(ids, &user)?;
        user_namespace::can_map(spec, &mount_sources, &mountinfo, namespace.as_fd())?;
    }
    let declared = volumes::declared(runtime, spec, image, rootfs)?;
    let devices = devices::resolve(spec)
        .map_err(|e| InvalidField::invalid("config.devices", Chain(&e).to_string()))?;
    let localhost_seccomp = localhost_profile(spec)?;
    let node = NodeFacts {
        apparmor: apparmor_facts(&runtime.config.security),
        ..runtime.container_facts.clone()
    };
    let input = SpecInput {
        config: spec,
        image,
        user: &user,
        sandbox: &facts.sandbox,
        node: &node,
        rootfs,
        cgroup: facts.cgroup.as_deref(),
        mount_sources: &mount_sources,
        image_volumes: &declared,
        devices: &devices,
        target_pid: facts.target_pid.as_deref(),
        localhost_seccomp: localhost_seccomp.as_ref(),
    };
    let spec = spec::build(&input).map_err(refused)?;
    write_bundle(&record.bundle, &spec).map_err(OpError::step(format!(
        "cannot write the bundle {}",
        record.bundle
    )))?;
    Ok(user)
}

fn localhost_profile(spec: &ContainerSpec) -> Result<Option<Profile>, OpError> {
    match &spec.security.seccomp {
        SeccompProfile::Localhost(path) => seccomp::load(path).map(Some).map_err(|e| {
            const FIELD: &str = "config.linux.security_context.seccomp.localhost_ref";
            InvalidField::invalid(FIELD, Chain(&e).to_string()).into()
        }),
        SeccompProfile::Unconfined | SeccompProfile::RuntimeDefault => Ok(None),
    }
}

fn write_bundle(dir: &Utf8Path, spec: &Spec) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("config.json"), serde_json::to_vec(spec)?)
}

/// Hands the bundle to conmon and crun.
pub(super) async fn create(
    runtime: &Runtime,
    pod: &PodRecord,
    record: &ContainerRecord,
) -> Result<Created, OpError> {
    if let Some(dir) = record.log_path.parent() {
        tokio::fs::create_dir_all(dir)
            .await
            .map_err(OpError::step(format!(
                "cannot make the log directory {dir}"
            )))?;
    }
    let cgroups = &running(pod)?.cgroups;
    let oci = CreateContainer {
        id: record.id.clone(),
        bundle: record.bundle.clone(),
        log_path: record.log_path.clone(),
        terminal: record.spec.tty,
        stdin: record.spec.stdin,
        stdin_once: record.spec.stdin_once,
        monitor_cgroup: Some(cgroups.monitor.clone()),
        container_cgroup: cgroups.container.join(&record.id),
    };
    runtime
        .oci
        .create(&oci)
        .await
        .map_err(OpError::step(format!(
            "cannot create container {}",
            record.id
        )))
}

/// An unknown user is the request's or the image's mistake; an unreadable file is ours.
fn no_such_user(error: users::UserError) -> OpError {
    if error.is_invalid() {
        return InvalidField::invalid("config.linux.security_context", error.to_string()).into();
    }
    OpError::failed("cannot find out who the container runs as", error)
}

/// The spec builder's error in the caller's terms.
pub(super) fn refused(error: spec::SpecError) -> OpError {
    match error {
        spec::SpecError::Refused(field) => field.into(),
        e @ spec::SpecError::Oci(_) => OpError::failed("cannot describe the container", e),
    }
}
