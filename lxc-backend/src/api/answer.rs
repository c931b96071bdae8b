//! What the API answers: pure functions from bytes to values and errors.
//!
//! Proxmox puts its words in several places: `message` and `errors` of the body, the reason phrase of the status line
//! (before pve-http-server 5.2 there only, and still where the body is empty, as with a wrong token), or, where its proxy speaks, in
//! the reason phrase of a status between 595 and 599. Most refusals have status 500, and only their words tell them apart.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::PveError;

/// Longest text taken from an answer for a message, in characters.
const MAX_TEXT: usize = 1000;

/// An answer, whole.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The reason phrase, if it is not the usual one.
    pub(super) reason: Option<String>,
    pub(super) body: Bytes,
}

/// What was asked, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The API server.
    pub(super) url: &'a str,
    /// An imperative, as in "start container 100".
    pub(super) doing: &'a str,
}

/// An answer that makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("it answers something else than JSON: {text:?}")]
    NotJson {
        text: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("it answers HTTP {status}: {message}")]
    Status { status: u16, message: String },
    #[error("{field} is {value}, which cannot be")]
    Value { field: &'static str, value: String },
    #[error("it answers {0:?} instead of the name of a task")]
    Upid(String),
}

impl Asked<'_> {
    /// The API cannot be used, for this reason.
    pub(super) fn unreachable(
        self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> PveError {
        PveError::Unreachable {
            url: self.url.to_owned(),
            doing: self.doing.to_owned(),
            source: source.into(),
        }
    }
}

/// The value in an answer, or why there is none.
pub(super) fn value<T: DeserializeOwned>(answer: &Answer, asked: Asked<'_>) -> Result<T, PveError> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        data: T,
    }
    if !answer.status.is_success() {
        return Err(refusal(answer, asked));
    }
    match serde_json::from_slice::<Envelope<T>>(&answer.body) {
        Ok(envelope) => Ok(envelope.data),
        Err(source) => Err(asked.unreachable(AnswerError::NotJson {
            text: excerpt(&String::from_utf8_lossy(&answer.body)),
            source,
        })),
    }
}

/// Whether another try of something harmless may help: an answer of a proxy that could not reach who should have answered.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504 | 595..=599)
}

/// Why the API refused, in its own words.
fn refusal(answer: &Answer, asked: Asked<'_>) -> PveError {
    let words = Words::of(answer);
    let status = answer.status.as_u16();
    let message = excerpt(&words.to_string());
    match status {
        401 => PveError::Unauthorized { message },
        403 => PveError::Forbidden {
            doing: asked.doing.to_owned(),
            message,
        },
        _ if is_passing(answer.status) => {
            asked.unreachable(AnswerError::Status { status, message })
        }
        404 => not_found(asked, message),
        // Proxmox sends no other redirects than to HTTPS and none that one could follow.
        100..=399 => asked.unreachable(AnswerError::Status { status, message }),
        _ => meaning(&message, asked).unwrap_or_else(|| PveError::Refused {
            doing: asked.doing.to_owned(),
            status,
            message,
        }),
    }
}

/// What words mean that Proxmox uses for refusals and as the end of a task, if it is more than a refusal.
pub(super) fn meaning(message: &str, asked: Asked<'_>) -> Option<PveError> {
    if message.contains("no quorum") {
        return Some(PveError::NoQuorum {
            message: message.to_owned(),
        });
    }
    if is_lock_timeout(message) || message.contains(" is locked (") {
        return Some(PveError::Locked {
            doing: asked.doing.to_owned(),
            message: message.to_owned(),
        });
    }
    let missing = message.contains("Configuration file '") && message.contains("' does not exist")
        || message.contains("no such cluster node '")
        || message.contains("no such task");
    missing.then(|| not_found(asked, message.to_owned()))
}

/// Whether somebody held a container's lock for so long that Proxmox gave up. A lock in its configuration
/// (`CT is locked (backup)`) is another matter: that may take hours.
pub(super) fn is_lock_timeout(message: &str) -> bool {
    message.contains("can't lock file") && message.contains("got timeout")
}

fn not_found(asked: Asked<'_>, message: String) -> PveError {
    PveError::NotFound {
        doing: asked.doing.to_owned(),
        message,
    }
}

/// Proxmox's words.
struct Words {
    message: String,
    /// What is wrong with which parameter.
    errors: BTreeMap<String, String>,
}

impl Words {
    fn of(answer: &Answer) -> Self {
        #[derive(Default, Deserialize)]
        struct Body {
            message: Option<String>,
            errors: Option<BTreeMap<String, serde_json::Value>>,
        }
        let body: Option<Body> = serde_json::from_slice(&answer.body).ok();
        let is_json = body.is_some();
        let body = body.unwrap_or_default();
        let errors = body.errors.unwrap_or_default().into_iter();
        let errors = errors.map(|(key, value)| match value {
            serde_json::Value::String(text) => (key, excerpt(&text)),
            other => (key, excerpt(&other.to_string())),
        });
        let said = [body.message.as_deref(), answer.reason.as_deref()];
        let mut said = said.into_iter().flatten().map(excerpt);
        let text = || match &answer.body {
            body if is_json || body.is_empty() => None,
            body => Some(excerpt(&String::from_utf8_lossy(body))),
        };
        let usual = || {
            answer
                .status
                .canonical_reason()
                .unwrap_or("no reason given")
        };
        let message = said.find(|text| !text.is_empty());
        let message = message.or_else(|| text().filter(|text| !text.is_empty()));
        Self {
            message: message.unwrap_or_else(|| usual().to_owned()),
            errors: errors.collect(),
        }
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        for (number, (parameter, why)) in self.errors.iter().enumerate() {
            let before = if number == 0 { " (" } else { "; " };
            write!(f, "{before}{parameter}: {why}")?;
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        f.write_str(")")
    }
}

/// A text on one line and of bearable length: Proxmox ends its messages with a line end.
pub(super) fn excerpt(text: &str) -> String {
    let mut line = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == MAX_TEXT {
            line.push('…');
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const ASKED: Asked<'_> = Asked {
        url: "https://127.0.0.1:8006",
        doing: "start container 100",
    };

    fn answer(status: u16, reason: &str, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn error(status: u16, reason: &str, body: &str) -> PveError {
        value::<Value>(&answer(status, reason, body), ASKED).unwrap_err()
    }

    #[test]
    fn a_value_is_in_an_envelope() {
        let good = answer(200, "", r#"{"data":{"version":"9.2.11"}}"#);
        let data: Value = value(&good, ASKED).unwrap();
        assert_eq!(data["version"], "9.2.11");
        let null: Option<String> = value(&answer(200, "", r#"{"data":null}"#), ASKED).unwrap();
        assert_eq!(null, None);
    }

    #[test]
    fn what_is_no_json_is_shown() {
        let error = error(200, "", "<html>\n<title>Proxmox</title>");
        assert!(matches!(error, PveError::Unreachable { .. }), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("<html> <title>"), "{source}");
        assert!(error.is_retryable());
    }

    #[test]
    fn words_come_from_the_body_or_from_the_status_line() {
        let body = r#"{"data":null,"message":"CT 100 already running\n"}"#;
        for (reason, body) in [
            ("CT 100 already running", r#"{"data":null}"#),
            ("CT 100 already running", ""),
            ("", body),
            ("CT 100 already running", body),
            ("", "CT 100 already running\n"),
        ] {
            match error(500, reason, body) {
                PveError::Refused {
                    status, message, ..
                } => {
                    assert_eq!((status, &*message), (500, "CT 100 already running"));
                }
                other => panic!("{other:?}"),
            }
        }
        let silent = error(500, "", "").to_string();
        assert!(silent.ends_with("Internal Server Error"), "{silent}");
    }

    #[test]
    fn parameters_are_named() {
        let body = r#"{"errors":{"x":"property is not defined in schema and the schema does not allow additional properties","vmid":"type check ('integer') failed"},"message":"Parameter verification failed.\n","data":null}"#;
        let text = error(400, "Parameter verification failed.", body).to_string();
        insta::assert_snapshot!(text, @"Proxmox refuses to start container 100 (HTTP 400): Parameter verification failed. (vmid: type check ('integer') failed; x: property is not defined in schema and the schema does not allow additional properties)");
    }

    #[test]
    fn a_missing_privilege_is_named() {
        let body =
            r#"{"data":null,"message":"Permission check failed (/vms/100, VM.PowerMgmt)\n"}"#;
        let error = error(
            403,
            "Permission check failed (/vms/100, VM.PowerMgmt)",
            body,
        );
        assert!(matches!(error, PveError::Forbidden { .. }), "{error:?}");
        assert_eq!(
            error.missing_privilege(),
            Some(("/vms/100", "VM.PowerMgmt"))
        );
        assert!(
            error.to_string().contains("may not start container 100"),
            "{error}"
        );
    }

    #[test]
    fn statuses_and_words_have_meanings() {
        let locked = "can't lock file '/run/lock/lxc/pve-config-100.lock' - got timeout";
        let kind = |status, words| match error(status, words, "") {
            PveError::NotFound { .. } => "not found",
            PveError::Unauthorized { .. } => "unauthorized",
            PveError::Locked { .. } => "locked",
            PveError::NoQuorum { .. } => "no quorum",
            PveError::Refused { .. } => "refused",
            PveError::Unreachable { .. } => "unreachable",
            other => panic!("{other:?}"),
        };
        for (status, words, wanted) in [
            (401, "Authentication failed!", "unauthorized"),
            (500, locked, "locked"),
            (500, "CT is locked (backup)", "locked"),
            (500, "cluster not ready - no quorum?", "no quorum"),
            (
                500,
                "Configuration file 'nodes/pve1/lxc/100.conf' does not exist",
                "not found",
            ),
            (500, "no such cluster node 'pve2'", "not found"),
            (404, "", "not found"),
            (501, "Method 'GET /x' not implemented", "refused"),
            (595, "Connection refused", "unreachable"),
            (596, "Connection timed out", "unreachable"),
            (599, "Too many redirections", "unreachable"),
            (301, "Moved Permanently", "unreachable"),
        ] {
            assert_eq!(kind(status, words), wanted, "{status} {words}");
        }
        assert!(is_lock_timeout(locked));
        assert!(!is_lock_timeout("CT is locked (backup)"));
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_value_or_a_bounded_error(
            status in 100u16..1000,
            reason in proptest::option::of(".{0,20}"),
            body in proptest::collection::vec(any::<u8>(), 0..3000),
        ) {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                reason,
                body: body.into(),
            };
            if let Err(error) = value::<Value>(&answer, ASKED) {
                prop_assert!(error.to_string().chars().count() < 2 * MAX_TEXT);
            }
        }

        #[test]
        fn any_json_makes_a_value_or_an_error(
            status in 100u16..1000,
            message in ".{0,20}",
            errors in proptest::collection::btree_map(".{0,5}", ".{0,5}", 0..3),
        ) {
            let body = serde_json::json!({"data": null, "message": message, "errors": errors});
            let answer = answer(status, "", &body.to_string());
            let result = value::<Value>(&answer, ASKED);
            prop_assert_eq!(result.is_ok(), answer.status.is_success());
        }
    }
}
