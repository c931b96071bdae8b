//! The backends of this machine, and which of them a new pod gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexcage_config::{Backend, Config, Handler};
use nexcage_sandbox::{SandboxBackend, SandboxError};

use super::choice::{self, Choice};
use crate::cri::InvalidField;
use crate::error::{Chain, Kind, OpError};

/// The backends of this machine, and the configuration's choice among them.
#[derive(Debug)]
pub(crate) struct Backends {
    lxc: Arc<dyn SandboxBackend>,
    host: Arc<dyn SandboxBackend>,
    /// `None` where Proxmox is neither configured nor found.
    proxmox: Option<Arc<dyn SandboxBackend>>,
    config: Config,
}

impl Backends {
    pub(crate) fn new(
        lxc: Arc<dyn SandboxBackend>,
        host: Arc<dyn SandboxBackend>,
        proxmox: Option<Arc<dyn SandboxBackend>>,
        config: Config,
    ) -> Self {
        Self {
            lxc,
            host,
            proxmox,
            config,
        }
    }

    /// All there are.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<dyn SandboxBackend>> {
        [&self.lxc, &self.host].into_iter().chain(&self.proxmox)
    }

    /// That of Proxmox, where this machine is a node of it.
    pub(crate) fn proxmox(&self) -> Option<&Arc<dyn SandboxBackend>> {
        self.proxmox.as_ref()
    }

    /// The backend with this name, as a pod's record has it.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<dyn SandboxBackend>, OpError> {
        self.all()
            .find(|b| b.name() == name)
            .map(Arc::clone)
            .ok_or_else(|| OpError::State(format!("this nexcage has no sandbox backend {name:?}")))
    }

    /// The handlers whose backend is on this machine.
    pub(crate) fn handlers(&self) -> Vec<Handler> {
        let mut handlers = self.config.handlers();
        handlers.retain(|handler| self.backend(handler.backend).is_some());
        handlers
    }

    /// The backend for a new pod of this runtime handler and with these annotations. Where LXC cannot work and the
    /// configuration allows `oci_fallback`, it is the `host` backend.
    pub(crate) async fn choose(
        &self,
        handler: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn SandboxBackend>, OpError> {
        let choice = choice::choose(&self.config, handler, annotations);
        let choice = choice.ok_or_else(|| self.unknown(handler))??;
        let wanted = self
            .backend(choice.backend)
            .ok_or_else(|| self.absent(&choice))?;
        if choice.backend != Backend::Lxc || !self.config.oci_fallback {
            return Ok(Arc::clone(wanted));
        }
        match wanted.check().await {
            Ok(()) => Ok(Arc::clone(wanted)),
            Err(error) => {
                tracing::warn!(
                    error = %Chain(&error),
                    "LXC cannot serve this pod; oci_fallback gives it the host backend"
                );
                Ok(Arc::clone(&self.host))
            }
        }
    }

    /// Whether new pods of the default handler can be made. Proxmox has a condition of its own: without its cluster's
    /// quorum no such pod is made, but those there are go on, and so do other handlers.
    pub(crate) async fn check_default(&self) -> Result<(), OpError> {
        let backend = self.choose("", &BTreeMap::new()).await?;
        if Some(backend.name()) == self.proxmox().map(|proxmox| proxmox.name()) {
            return Ok(());
        }
        let checked = backend.check().await;
        checked.map_err(|e| self.refusal("cannot start the pod sandbox", e))
    }

    fn backend(&self, backend: Backend) -> Option<&Arc<dyn SandboxBackend>> {
        match backend {
            Backend::Lxc => Some(&self.lxc),
            Backend::Proxmox => self.proxmox.as_ref(),
            Backend::Host => Some(&self.host),
        }
    }

    fn unknown(&self, handler: &str) -> OpError {
        let known: Vec<_> = self.handlers().into_iter().map(|h| h.name).collect();
        let problem = format!("{handler:?} is not configured; there are {known:?}");
        InvalidField::invalid("runtime_handler", problem).into()
    }

    fn absent(&self, choice: &Choice) -> OpError {
        let pve_dir = self.config.proxmox.clone().unwrap_or_default().pve_dir;
        OpError::State(format!(
            "{} asks for a container of Proxmox VE, but no cluster file system is mounted at {pve_dir} and the \
             configuration has no section `proxmox`",
            choice.by
        ))
    }

    /// A backend's error in the caller's terms.
    pub(crate) fn refusal(&self, doing: &'static str, error: SandboxError) -> OpError {
        match error {
            SandboxError::Unsupported {
                backend,
                field,
                reason,
            } => InvalidField::unsupported(
                field,
                format!("the {backend} backend does not support this: {reason}"),
            )
            .into(),
            e @ SandboxError::Unavailable { .. } => OpError::Unavailable {
                doing: e.to_string(),
                source: None,
            },
            SandboxError::Ended { id, source } => OpError::ended(
                format!("{} {id}", Kind::Pod),
                OpError::failed(doing, source),
            ),
            e => OpError::failed(doing, e),
        }
    }
}
