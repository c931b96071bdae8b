//! Errors as gRPC codes: the one mapping.

use nexcage_image_store::PullError;
use tonic::{Code, Status};

use super::invalid::InvalidKind;
use crate::error::{Chain, OpError, is_out_of_space};

/// Turns an error into the answer, and logs it: here and nowhere else.
pub(crate) fn refuse(rpc: &'static str, error: &OpError) -> Status {
    let code = code(error);
    let message = Chain(error).to_string();
    match code {
        // Routine between kubelet and any runtime.
        Code::NotFound => tracing::debug!(rpc, %message),
        _ => tracing::warn!(rpc, ?code, %message, "request failed"),
    }
    Status::new(code, with_kubelet_prefix(error, message))
}

/// The answer to an RPC that this version does not serve.
pub(crate) fn unimplemented(rpc: &'static str, what: &str) -> Status {
    Status::unimplemented(format!("{rpc}: {what}"))
}

fn code(error: &OpError) -> Code {
    if is_out_of_space(error) {
        return Code::ResourceExhausted;
    }
    match error {
        OpError::NotFound { .. } => Code::NotFound,
        OpError::Ambiguous { .. } => Code::InvalidArgument,
        OpError::Invalid(field) => match field.kind {
            InvalidKind::Invalid => Code::InvalidArgument,
            InvalidKind::Unsupported => Code::Unimplemented,
        },
        OpError::State(_) | OpError::Ended { .. } => Code::FailedPrecondition,
        OpError::Deadline(_) => Code::DeadlineExceeded,
        OpError::Unavailable { .. } => Code::Unavailable,
        OpError::Failed { .. } => Code::Unknown,
        OpError::Pull(e) => pull_code(e),
    }
}

fn pull_code(error: &PullError) -> Code {
    match error {
        PullError::NotFound { .. } => Code::NotFound,
        PullError::Unauthorized { .. } => Code::PermissionDenied,
        PullError::RateLimited { .. } => Code::ResourceExhausted,
        PullError::Unavailable { .. } | PullError::Closing => Code::Unavailable,
        PullError::Timeout { .. } => Code::DeadlineExceeded,
        PullError::Invalid { .. } => Code::InvalidArgument,
        PullError::Unsupported { .. } => Code::Unimplemented,
        _ => Code::Unknown,
    }
}

/// kubelet reads the reason of a failed pull from how the message begins.
fn with_kubelet_prefix(error: &OpError, message: String) -> String {
    match error {
        OpError::Pull(e) if pull_code(e) == Code::Unavailable => {
            format!("RegistryUnavailable: {message}")
        }
        _ => message,
    }
}
