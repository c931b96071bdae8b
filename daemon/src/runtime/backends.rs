//! Which shell a pod gets.

use std::sync::Arc;

use nexcage_config::{Backend, Config};
use nexcage_sandbox::{SandboxBackend, SandboxError};

use crate::cri::InvalidField;
use crate::error::{Chain, OpError};

/// The backends of this build, and the configuration's choice among them.
#[derive(Debug)]
pub(crate) struct Backends {
    lxc: Arc<dyn SandboxBackend>,
    host: Arc<dyn SandboxBackend>,
    config: Config,
}

impl Backends {
    pub(crate) fn new(
        lxc: Arc<dyn SandboxBackend>,
        host: Arc<dyn SandboxBackend>,
        config: Config,
    ) -> Self {
        Self { lxc, host, config }
    }

    /// All there are.
    pub(crate) fn all(&self) -> [&Arc<dyn SandboxBackend>; 2] {
        [&self.lxc, &self.host]
    }

    /// The backend with this name, as a pod's record has it.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<dyn SandboxBackend>, OpError> {
        self.all()
            .into_iter()
            .find(|b| b.name() == name)
            .map(Arc::clone)
            .ok_or_else(|| OpError::State(format!("this nexcage has no sandbox backend {name:?}")))
    }

    /// The backend for a new pod of this runtime handler. Where LXC cannot work and the
    /// configuration allows `oci_fallback`, it is the `host` backend.
    pub(crate) async fn choose(&self, handler: &str) -> Result<Arc<dyn SandboxBackend>, OpError> {
        let handler = self.config.handler(handler).ok_or_else(|| {
            let known: Vec<_> = self.config.handlers().into_iter().map(|h| h.name).collect();
            InvalidField::invalid(
                "runtime_handler",
                format!("{handler:?} is not configured; there are {known:?}"),
            )
        })?;
        let wanted = self.backend(handler.backend);
        if handler.backend != Backend::Lxc || !self.config.oci_fallback {
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

    /// Whether new pods of the default handler can be made, and by whom.
    pub(crate) async fn check_default(&self) -> Result<&'static str, OpError> {
        let backend = self.choose("").await?;
        let checked = backend.check().await;
        checked.map_err(|e| self.refusal("cannot start the pod sandbox", e))?;
        Ok(backend.name())
    }

    fn backend(&self, backend: Backend) -> &Arc<dyn SandboxBackend> {
        match backend {
            Backend::Lxc => &self.lxc,
            Backend::Host => &self.host,
        }
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
            e => OpError::failed(doing, e),
        }
    }
}
