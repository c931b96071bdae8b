//! Why no OCI configuration can be made.

use oci_spec::OciSpecError;

use crate::cri::InvalidField;

/// The container cannot be described.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    /// Something was asked for that this machine, pod or image cannot give.
    #[error(transparent)]
    Refused(#[from] InvalidField),
    /// The OCI types refuse what was put together.
    #[error("cannot put together the OCI configuration")]
    Oci(#[from] OciSpecError),
}
