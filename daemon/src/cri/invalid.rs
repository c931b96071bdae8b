//! A request that cannot be honoured, by field.

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(crate) struct InvalidField {
    /// Path of the field as the proto spells it: `config.linux.security_context.run_as_group`.
    pub(crate) field: String,
    /// What is wrong, and what would be right.
    pub(crate) problem: String,
    /// Whose fault it is.
    pub(crate) kind: InvalidKind,
}

/// Why a field is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidKind {
    /// The value makes no sense to any runtime: `INVALID_ARGUMENT`.
    Invalid,
    /// The value is legal, nexcage does not do it: `UNIMPLEMENTED`.
    Unsupported,
}

impl InvalidField {
    /// A value that makes no sense.
    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            kind: InvalidKind::Invalid,
        }
    }

    /// A value that nexcage does not support.
    pub(crate) fn unsupported(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            kind: InvalidKind::Unsupported,
        }
    }
}
