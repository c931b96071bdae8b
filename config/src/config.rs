//! The root of the file, and the sections that are older than the rest.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::handlers::RuntimeHandler;
use crate::images::Images;
use crate::lxc::{Lxc, Sandbox};
use crate::network::Network;
use crate::proxmox::Proxmox;
use crate::security::Security;
use crate::services::{Metrics, Streaming, Tracing};
use crate::storage::Storage;
use crate::value::AbsolutePath;

/// The whole file. Every key may be left out and then has its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The family of `default_backend`: what kind of shell a pod gets that names no runtime handler. Enough by
    /// itself to choose the family's usual backend, which for `lxc` is `lxc`; where both keys are given, they must
    /// agree. Default: the family of `default_backend`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Family>,
    /// The backend of pods that name no runtime handler, and choose none by an annotation. Default: the backend
    /// `runtime` names, or `lxc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_backend: Option<Backend>,
    /// Gives a pod to the `host` backend when the `lxc` backend cannot work on this machine. Without it such a pod is
    /// refused with the reason, as it always is when the `proxmox` backend cannot work.
    pub oci_fallback: bool,
    /// The directory where LXC keeps its containers (`lxc.lxcpath`).
    pub lxc_path: AbsolutePath,
    /// The daemon's own log.
    pub logging: Logging,
    /// The service for kubelet and crictl.
    pub kubernetes: Kubernetes,
    /// LXC containers.
    ///
    /// `template`, `distribution`, `release` and `architecture` describe the system image that LXC's template `download` would
    /// fetch for a system container. A pod never uses one: its LXC container runs nexcage's own small init, and its
    /// containers come from OCI images. So these four keys are checked and shown, and change nothing.
    pub lxc: Lxc,
    /// Pod sandboxes, whatever the backend.
    pub sandbox: Sandbox,
    /// What holds for every container on this node, on top of what its pod asks for.
    pub security: Security,
    /// Where data is kept.
    pub storage: Storage,
    /// Pulling and keeping images.
    pub images: Images,
    /// Pod networks by CNI plugins.
    pub network: Network,
    /// The server for exec, attach and port-forward streams. kubelet reaches it on this node and passes the bytes on.
    ///
    /// This build does not stream yet: the keys are checked, and will matter to the calls Exec, Attach and PortForward.
    pub streaming: Streaming,
    /// The endpoint for Prometheus.
    ///
    /// This build has none yet: the keys are checked and nothing listens.
    pub metrics: Metrics,
    /// Traces of requests by OTLP over gRPC.
    ///
    /// This build sends none yet: the keys are checked and nothing is sent.
    pub tracing: Tracing,
    /// Pods as Proxmox VE containers.
    ///
    /// The section, empty or not, says that this machine is a node of Proxmox VE; without it nexcage finds out by the
    /// cluster file system at `/etc/pve`, and takes the defaults. Where neither is there, the handlers `nexcage`,
    /// `nexcage-lxc` and `proxmox-lxc` are not offered, and a pod that names one is told what is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxmox: Option<Proxmox>,
    /// Runtime handlers by name, as `handler` of a Kubernetes RuntimeClass names them. The handler `""` is that of
    /// pods without a RuntimeClass; it is always there and may be listed to set more than its backend. So are
    /// `nexcage`, `nexcage-lxc` and `proxmox-lxc`, whose backend is `proxmox` unless they are listed with another.
    /// A name is a DNS label: at most 63 lower case letters, digits and `-`, with no `-` at either end.
    pub runtime_handlers: BTreeMap<String, RuntimeHandler>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime: None,
            default_backend: None,
            oci_fallback: false,
            lxc_path: AbsolutePath::constant("/var/lib/lxc"),
            logging: Logging::default(),
            kubernetes: Kubernetes::default(),
            lxc: Lxc::default(),
            sandbox: Sandbox::default(),
            security: Security::default(),
            storage: Storage::default(),
            images: Images::default(),
            network: Network::default(),
            streaming: Streaming::default(),
            metrics: Metrics::default(),
            tracing: Tracing::default(),
            proxmox: None,
            runtime_handlers: BTreeMap::new(),
        }
    }
}

impl Config {
    /// The backend of pods that name no runtime handler.
    pub fn default_backend(&self) -> Backend {
        self.default_backend
            .or(self.runtime.map(Family::usual_backend))
            .unwrap_or(Backend::Lxc)
    }

    /// Whether the file says that pods are to be containers of Proxmox VE, some or all.
    pub fn names_proxmox(&self) -> bool {
        let listed = self.runtime_handlers.values();
        self.proxmox.is_some()
            || self.default_backend() == Backend::Proxmox
            || listed
                .into_iter()
                .any(|handler| handler.backend == Some(Backend::Proxmox))
    }

    /// Directory where layers and images wait until they are unpacked.
    pub fn spool_dir(&self) -> camino::Utf8PathBuf {
        match &self.images.spool_dir {
            Some(dir) => dir.to_path_buf(),
            None => self.storage.root.join("spool"),
        }
    }

    /// Directory where results of CNI plugins are kept.
    pub fn cni_cache_dir(&self) -> camino::Utf8PathBuf {
        match &self.network.cache_dir {
            Some(dir) => dir.to_path_buf(),
            None => self.storage.root.join("cni"),
        }
    }
}

/// What kind of shell a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// An LXC container, plain (`lxc`) or of Proxmox VE (`proxmox`).
    Lxc,
    /// Namespaces of the host, without LXC.
    Host,
}

impl Family {
    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lxc => "lxc",
            Self::Host => "host",
        }
    }

    fn usual_backend(self) -> Backend {
        match self {
            Self::Lxc => Backend::Lxc,
            Self::Host => Backend::Host,
        }
    }
}

/// What makes the shells of pods.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Each pod is a plain LXC container.
    Lxc,
    /// Each pod is a container of Proxmox VE, which `pct list` and the web UI show.
    Proxmox,
    /// Each pod is a set of namespaces held by one small process.
    Host,
}

impl Backend {
    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lxc => "lxc",
            Self::Proxmox => "proxmox",
            Self::Host => "host",
        }
    }

    /// What kind of shell it makes.
    pub fn family(self) -> Family {
        match self {
            Self::Lxc | Self::Proxmox => Family::Lxc,
            Self::Host => Family::Host,
        }
    }
}

/// The daemon's own log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// The least severe level that is written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// The file that log lines are appended to; its directory must exist. Default: standard error, which systemd
    /// hands to the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<AbsolutePath>,
}

/// Severity of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Every step, with data.
    Trace,
    /// What is needed to find a fault.
    Debug,
    /// What the daemon does.
    #[default]
    Info,
    /// What somebody should look at.
    Warn,
    /// What failed.
    Error,
}

impl LogLevel {
    /// The name in the file, which is also that of `tracing`'s level.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The service for kubelet and crictl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kubernetes {
    /// Serve CRI. It is the daemon's only service, so `false` is refused; to serve nothing, stop the daemon.
    pub enabled: bool,
    /// The Unix socket, at most 107 bytes long (unix(7)). Its directory is made if it is missing, the socket has
    /// mode 0660.
    pub cri_socket: AbsolutePath,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            enabled: true,
            cri_socket: AbsolutePath::constant("/run/nexcage/nexcage.sock"),
        }
    }
}
