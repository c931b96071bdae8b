//! Requests and answers, below the registry protocol.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Response, StatusCode};
use url::Url;

use super::failure::{Failure, FailureKind};

/// Redirects followed for one request, as Go's client and so every registry expects.
const MAX_REDIRECTS: usize = 10;
/// How much of an error answer is read, in bytes.
const MAX_ERROR_BODY: usize = 8 << 10;

/// An answer, and who gave it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    /// Set if a redirect led away from the host that was asked: the other host's name.
    pub(super) elsewhere: Option<String>,
}

/// Sends a GET and follows redirects. `authorization` goes to the origin of `start` alone: the
/// first redirect to another scheme, host or port drops it for good (CVE-2020-15157).
pub(super) async fn get(
    client: &reqwest::Client,
    start: &Url,
    headers: &HeaderMap,
    own: &HeaderMap,
    authorization: Option<&HeaderValue>,
    deadline: Duration,
) -> Result<Answer, Failure> {
    let mut url = start.clone();
    let mut authorization = authorization;
    let mut elsewhere = None;
    for _ in 0..=MAX_REDIRECTS {
        let mut request = client
            .get(url.clone())
            .headers(headers.clone())
            // The digest is that of the bytes as they are stored.
            .header(ACCEPT_ENCODING, "identity");
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if elsewhere.is_none() {
            request = request.headers(own.clone());
        }
        let response = send(request, deadline).await?;
        if !is_redirect(response.status()) {
            return Ok(Answer {
                response,
                elsewhere,
            });
        }
        let next = target(&url, &response)?;
        if !same_origin(start, &next) {
            authorization = None;
            elsewhere = Some(next.host_str().unwrap_or_default().to_owned());
        }
        url = next;
    }
    Err(Failure::invalid(format!(
        "redirects more than {MAX_REDIRECTS} times"
    )))
}

/// Sends one request and waits for the head of its answer.
pub(super) async fn send(
    request: reqwest::RequestBuilder,
    deadline: Duration,
) -> Result<Response, Failure> {
    match tokio::time::timeout(deadline, request.send()).await {
        Ok(sent) => sent.map_err(Failure::transport),
        Err(_) => Err(stalled("answer", deadline)),
    }
}

pub(super) fn stalled(what: &str, deadline: Duration) -> Failure {
    Failure::new(
        FailureKind::Stalled,
        format!("no {what} for {:.1} s", deadline.as_secs_f64()),
    )
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn target(from: &Url, response: &Response) -> Result<Url, Failure> {
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| Failure::invalid("redirects without saying where to"))?;
    let next = from
        .join(location)
        .map_err(|_| Failure::invalid("redirects to something that is not a URL"))?;
    match (from.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => Ok(next),
        (_, other) => Err(Failure::invalid(format!(
            "redirects from {} to {other}, which is not followed",
            from.scheme()
        ))),
    }
}

fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

impl Answer {
    /// The answer, if its status is one of `wanted`; else what it says went wrong.
    pub(super) async fn expect(
        self,
        wanted: &[StatusCode],
        deadline: Duration,
    ) -> Result<Response, Failure> {
        let status = self.response.status();
        if wanted.contains(&status) {
            return Ok(self.response);
        }
        let Some(elsewhere) = self.elsewhere else {
            return Err(error_answer(self.response, deadline).await);
        };
        // What another host writes is none of the caller's business, and its refusal is not one of
        // the registry: a signed address expires, a new one will do.
        let mut failure = Failure::status(status, None, b"");
        if matches!(
            failure.kind,
            FailureKind::Unauthorized | FailureKind::Invalid
        ) {
            failure.kind = FailureKind::Unavailable;
        }
        failure.detail = format!("redirected to {elsewhere}, which {}", failure.detail);
        Err(failure)
    }
}

/// What an answer with an error status says.
pub(super) async fn error_answer(mut response: Response, deadline: Duration) -> Failure {
    let status = response.status();
    let retry_after = retry_after(response.headers(), Timestamp::now());
    let mut body = BytesMut::new();
    // An error text that does not come in full is still better than none.
    while body.len() < MAX_ERROR_BODY {
        match tokio::time::timeout(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            _ => break,
        }
    }
    body.truncate(MAX_ERROR_BODY);
    Failure::status(status, retry_after, &body)
}

/// Reads a small body whole.
pub(super) async fn body(
    mut response: Response,
    max: u64,
    deadline: Duration,
) -> Result<Bytes, Failure> {
    let too_large = || {
        Failure::new(
            FailureKind::Unsupported,
            format!("answers with more than the {max} bytes allowed for such a document"),
        )
    };
    if response.content_length().is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    loop {
        let chunk = tokio::time::timeout(deadline, response.chunk())
            .await
            .map_err(|_| stalled("data", deadline))?
            .map_err(Failure::transport)?;
        let Some(chunk) = chunk else {
            return Ok(body.freeze());
        };
        if (body.len() + chunk.len()) as u64 > max {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
}

/// `Retry-After`: seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()?;
    let seconds = date.as_second().saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-20T10:00:00Z".parse().unwrap();
        let wait = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(wait("12"), Some(Duration::from_secs(12)));
        assert_eq!(
            wait("Fri, 20 Nov 2026 10:01:00 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(wait("Fri, 20 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert!(same_origin(&url("https://a/x"), &url("https://a:443/y")));
        for other in ["http://a/x", "https://b/x", "https://a:444/x"] {
            assert!(!same_origin(&url("https://a/x"), &url(other)));
        }
    }
}
