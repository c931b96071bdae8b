//! The handle.

use std::sync::Arc;

use crate::options::OciRuntimeOptions;

/// Runs OCI containers by crun under conmon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OciRuntime {
    pub(crate) options: Arc<OciRuntimeOptions>,
}

impl OciRuntime {
    /// A runtime with these options. Nothing is touched before the first call.
    pub fn new(options: OciRuntimeOptions) -> Self {
        Self {
            options: Arc::new(options),
        }
    }
}
