//! Why a shell could not be made or ended.

use crate::backend::SandboxId;

/// A backend's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// Nothing is known of this sandbox.
    #[error("sandbox {id} does not exist")]
    NotFound {
        /// The sandbox.
        id: SandboxId,
    },
    /// The spec asks for something this backend cannot do.
    #[error("the {backend} backend does not support {field}: {reason}")]
    Unsupported {
        /// The backend.
        backend: &'static str,
        /// The CRI field.
        field: &'static str,
        /// Why not.
        reason: String,
    },
    /// The machine lacks something.
    #[error("the {backend} backend cannot work here: {reason}")]
    Unavailable {
        /// The backend.
        backend: &'static str,
        /// What is missing and what to do.
        reason: String,
    },
    /// It ended while something was done with it: somebody stopped it, or its first process crashed.
    #[error("sandbox {id} has ended")]
    Ended {
        /// The sandbox.
        id: SandboxId,
        /// What could not be done any more.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A step of starting or ending it failed.
    #[error("sandbox {id}: cannot {doing}")]
    Step {
        /// The sandbox.
        id: SandboxId,
        /// What was being done, as an imperative.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SandboxError {
    /// Makes a [`Step`](Self::Step) of what went wrong while `doing` something: an imperative, as in "make the cgroups".
    pub fn step<E>(id: &SandboxId, doing: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (id, doing) = (id.clone(), doing.into());
        move |source| Self::Step {
            id,
            doing,
            source: source.into(),
        }
    }

    /// It has ended, which `error` comes from.
    pub fn ended(id: &SandboxId, error: Self) -> Self {
        Self::Ended {
            id: id.clone(),
            source: error.into(),
        }
    }

    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            // Load, a busy cgroup, a slow systemd: kubelet retries anyway.
            Self::Step { .. } | Self::Ended { .. } => true,
            Self::NotFound { .. } | Self::Unsupported { .. } | Self::Unavailable { .. } => false,
        }
    }
}
