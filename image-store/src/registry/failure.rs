//! What went wrong at a host, in its own words.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;

use crate::pull::PullError;

/// Longest text taken from an answer that is not a registry error, in characters.
const MAX_TEXT: usize = 300;

/// Why one host could not serve a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) detail: String,
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    NotFound,
    Unauthorized,
    RateLimited {
        retry_after: Option<Duration>,
    },
    /// It may be better in a moment: no connection, a server error, an answer cut off.
    Unavailable,
    /// Nothing came for too long.
    Stalled,
    /// Its certificate is not trusted.
    Untrusted,
    /// The answer is wrong and will stay so.
    Invalid,
    /// The answer is of a kind that cannot be used.
    Unsupported,
    /// The settings for this host cannot work.
    Settings,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, detail)
    }

    /// Whether the same host may be asked again.
    pub(crate) fn is_transient(&self) -> bool {
        match self.kind {
            FailureKind::RateLimited { .. } | FailureKind::Unavailable | FailureKind::Stalled => {
                true
            }
            FailureKind::NotFound
            | FailureKind::Unauthorized
            | FailureKind::Untrusted
            | FailureKind::Invalid
            | FailureKind::Unsupported
            | FailureKind::Settings => false,
        }
    }

    /// No answer, or an answer that was cut off.
    pub(crate) fn transport(error: reqwest::Error) -> Self {
        // The address may carry a signature, and whoever reads this knows the host.
        let error = error.without_url();
        let kind = if is_untrusted(&error) {
            FailureKind::Untrusted
        } else {
            FailureKind::Unavailable
        };
        Self::new(kind, chain(&error))
    }

    /// An answer with an error status. `body` is its beginning.
    pub(crate) fn status(
        status: reqwest::StatusCode,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let kind = match status.as_u16() {
            404 | 410 => FailureKind::NotFound,
            401 | 403 => FailureKind::Unauthorized,
            429 => FailureKind::RateLimited { retry_after },
            408 | 425 | 500..=599 => FailureKind::Unavailable,
            _ => FailureKind::Invalid,
        };
        let mut detail = format!("answered {status}");
        if let Some(message) = message(body) {
            let _ = write!(detail, ": {message}");
        }
        if let Some(wait) = retry_after {
            let _ = write!(detail, " (asks to wait {} s)", wait.as_secs());
        }
        Self::new(kind, detail)
    }

    /// As the result of a pull of `reference`; `detail` speaks for all hosts.
    pub(crate) fn into_pull_error(self, reference: String, detail: String) -> PullError {
        match self.kind {
            FailureKind::NotFound => PullError::NotFound { reference, detail },
            FailureKind::Unauthorized => PullError::Unauthorized { reference, detail },
            FailureKind::RateLimited { retry_after } => PullError::RateLimited {
                reference,
                detail,
                retry_after,
            },
            FailureKind::Unavailable => PullError::Unavailable {
                reference,
                detail,
                retryable: true,
            },
            FailureKind::Untrusted => PullError::Unavailable {
                reference,
                detail,
                retryable: false,
            },
            FailureKind::Stalled => PullError::Timeout { reference, detail },
            FailureKind::Invalid => PullError::Invalid { reference, detail },
            FailureKind::Unsupported => PullError::Unsupported { reference, detail },
            FailureKind::Settings => PullError::Settings { reference, detail },
        }
    }
}

/// An error with all its sources, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        // Some libraries repeat their source in their own text.
        if !text.ends_with(&said) {
            let _ = write!(text, ": {said}");
        }
        source = error.source();
    }
    text
}

/// Whether the TLS handshake failed, which repeating does not cure.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    // An I/O error made from another error does not name it as its source.
    let inner = match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    };
    inner.is_some_and(is_untrusted)
}

/// Errors as the distribution spec ("Error Codes") has them, and as token services write them.
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    error: Option<String>,
    error_description: Option<String>,
    details: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    message: Option<String>,
}

/// What the beginning of an error answer says, fit for one line of a log.
fn message(body: &[u8]) -> Option<String> {
    let text = if let Ok(body) = serde_json::from_slice::<ErrorBody>(body) {
        let entries = body.errors.iter().map(|entry| match &entry.message {
            Some(message) => format!("{}: {message}", entry.code),
            None => entry.code.clone(),
        });
        let own = [
            body.error,
            body.error_description,
            body.details,
            body.message,
        ];
        entries
            .chain(own.into_iter().flatten())
            .collect::<Vec<_>>()
            .join("; ")
    } else {
        let text = String::from_utf8_lossy(body);
        if looks_like_html(&text) {
            "a web page; is this a registry, or a proxy that wants a login?".to_owned()
        } else {
            text.into_owned()
        }
    };
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect();
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// Whether the beginning of a body is that of a web page.
pub(crate) fn looks_like_html(text: &str) -> bool {
    let start = text.trim_start().get(..15).unwrap_or_default();
    let start = start.to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html") || start.starts_with("<head")
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn a_registry_is_quoted() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\nentry","detail":{"a":1}},{"code":"X"}]}"#;
        let failure = Failure::status(StatusCode::FORBIDDEN, None, body);
        assert_eq!(failure.kind, FailureKind::Unauthorized);
        assert_eq!(
            failure.detail,
            "answered 403 Forbidden: DENIED: no entry; X"
        );
        let page = Failure::status(StatusCode::BAD_GATEWAY, None, b"<html><body>very long page");
        assert!(page.detail.contains("a web page"), "{}", page.detail);
        let wait = Some(Duration::from_secs(7));
        let slow = Failure::status(StatusCode::TOO_MANY_REQUESTS, wait, b"slow down");
        assert_eq!(
            slow.detail,
            "answered 429 Too Many Requests: slow down (asks to wait 7 s)"
        );
        let token = br#"{"error":"invalid_grant","error_description":"expired"}"#;
        let token = Failure::status(StatusCode::BAD_REQUEST, None, token);
        assert_eq!(
            token.detail,
            "answered 400 Bad Request: invalid_grant; expired"
        );
    }

    #[test]
    fn a_long_answer_is_cut() {
        let long = "é".repeat(5000);
        let failure = Failure::status(StatusCode::NOT_FOUND, None, long.as_bytes());
        assert!(failure.detail.chars().count() < MAX_TEXT + 50);
    }
}
