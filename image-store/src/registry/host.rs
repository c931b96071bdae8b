//! One host of a registry, as one pull sees it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE,
    WWW_AUTHENTICATE,
};
use reqwest::{Response, StatusCode};
use url::Url;

use super::auth::Auth;
use super::challenge::{self, Challenge};
use super::connect::Connections;
use super::failure::{Failure, looks_like_html};
use super::hosts::Candidate;
use super::http;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::manifest::{self, Blob};

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A host, with the authentication of one pull.
#[derive(Debug)]
pub(crate) struct Host {
    candidate: Candidate,
    repository: String,
    connections: Arc<Connections>,
    auth: Auth,
    /// Longest wait for the head of an answer, and between pieces of a small body.
    deadline: Duration,
}

/// A manifest or index as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

/// A blob on its way.
#[derive(Debug)]
pub(crate) struct BlobBody {
    pub(crate) response: Response,
    /// Bytes at its beginning that were there before: the host does not know ranges.
    pub(crate) skip: u64,
}

impl Host {
    pub(crate) fn new(
        candidate: Candidate,
        repository: &str,
        connections: Arc<Connections>,
        credentials: Credentials,
        deadline: Duration,
    ) -> Self {
        Self {
            candidate,
            repository: repository.to_owned(),
            connections,
            auth: Auth::new(credentials, repository),
            deadline,
        }
    }

    /// A manifest or index by tag or digest, at most `max` bytes.
    pub(crate) async fn manifest(&self, name: &str, max: u64) -> Result<Document, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(manifest::ACCEPT));
        let response = self
            .get(&format!("manifests/{name}"), headers, &[StatusCode::OK])
            .await?;
        refuse_page(&response)?;
        let claimed = response.headers().get(DOCKER_CONTENT_DIGEST).cloned();
        let bytes = http::body(response, max, self.deadline).await?;
        if looks_like_html(&String::from_utf8_lossy(&bytes)) {
            return Err(web_page());
        }
        let digest = Digest::of(&bytes);
        let claimed = claimed.as_ref().and_then(|value| value.to_str().ok());
        let expected = name.parse::<Digest>().ok();
        let expected = expected.or_else(|| claimed?.parse().ok());
        match expected {
            Some(expected) if expected != digest => Err(Failure::invalid(format!(
                "the manifest it sends has the digest {digest}, not {expected}"
            ))),
            _ => Ok(Document { digest, bytes }),
        }
    }

    /// A small blob, whole and verified.
    pub(crate) async fn small_blob(&self, blob: &Blob, max: u64) -> Result<Bytes, Failure> {
        let body = self.blob(blob, 0, self.deadline).await?;
        let bytes = http::body(body.response, max.min(blob.size), self.deadline).await?;
        if bytes.len() as u64 != blob.size {
            return Err(Failure::invalid(format!(
                "{} has {} bytes, not {}",
                blob.digest,
                bytes.len(),
                blob.size
            )));
        }
        let digest = Digest::of(&bytes);
        if digest != blob.digest {
            return Err(Failure::invalid(format!(
                "what it sends for {} has the digest {digest}",
                blob.digest
            )));
        }
        Ok(bytes)
    }

    /// A blob from the byte `from` on. `deadline` is for the head of the answer.
    pub(crate) async fn blob(
        &self,
        blob: &Blob,
        from: u64,
        deadline: Duration,
    ) -> Result<BlobBody, Failure> {
        let path = format!("blobs/{}", blob.digest);
        let mut headers = HeaderMap::new();
        if from > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={from}-"))
        {
            headers.insert(RANGE, range);
        }
        let wanted = [
            StatusCode::OK,
            StatusCode::PARTIAL_CONTENT,
            StatusCode::RANGE_NOT_SATISFIABLE,
        ];
        let deadline = deadline.min(self.deadline);
        let mut response = self
            .get_within(
                &path,
                headers,
                &wanted[..if from > 0 { 3 } else { 1 }],
                deadline,
            )
            .await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // Says that it knows ranges and then does not: take it whole.
            response = self
                .get_within(&path, HeaderMap::new(), &wanted[..1], deadline)
                .await?;
        }
        refuse_page(&response)?;
        let skip = if response.status() == StatusCode::PARTIAL_CONTENT {
            check_range(&response, from, blob.size)?;
            0
        } else {
            check_length(&response, blob.size)?;
            from
        };
        Ok(BlobBody { response, skip })
    }

    async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
        wanted: &[StatusCode],
    ) -> Result<Response, Failure> {
        self.get_within(path, headers, wanted, self.deadline).await
    }

    /// GET below the repository, with authentication.
    async fn get_within(
        &self,
        path: &str,
        headers: HeaderMap,
        wanted: &[StatusCode],
        deadline: Duration,
    ) -> Result<Response, Failure> {
        let client = self.connections.client(&self.candidate.endpoint).await?;
        let url = self.url(path);
        let own = self.own_headers()?;
        let used = self.auth.header().await;
        let answer = http::get(&client, &url, &headers, &own, used.as_ref(), deadline).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED || answer.elsewhere.is_some() {
            return answer.expect(wanted, deadline).await;
        }
        let challenges = challenges(answer.response.headers());
        let again = self
            .auth
            .answer(&client, &url, &challenges, used.as_ref(), deadline)
            .await?;
        if !again {
            return answer.expect(wanted, deadline).await;
        }
        let header = self.auth.header().await;
        http::get(&client, &url, &headers, &own, header.as_ref(), deadline)
            .await?
            .expect(wanted, deadline)
            .await
    }

    /// Headers that the settings have for this server alone.
    fn own_headers(&self) -> Result<HeaderMap, Failure> {
        let settings = &self.candidate.endpoint.manner.headers;
        let bad = |name: &str| {
            let detail = format!("the header {name:?} in the settings is not one");
            Failure::new(super::failure::FailureKind::Settings, detail)
        };
        let mut headers = HeaderMap::new();
        for (name, value) in settings {
            let parsed = HeaderName::try_from(name)
                .ok()
                .zip(HeaderValue::try_from(value).ok());
            let (key, value) = parsed.ok_or_else(|| bad(name))?;
            headers.insert(key, value);
        }
        Ok(headers)
    }

    fn url(&self, path: &str) -> Url {
        let api = self.candidate.endpoint.api();
        let mut url = api.clone();
        url.set_path(&format!("{}{}/{path}", api.path(), self.repository));
        if let Some(registry) = &self.candidate.mirror_of {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        url
    }
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect()
}

fn web_page() -> Failure {
    Failure::invalid("answers with a web page; is this a registry, or a proxy that wants a login?")
}

fn refuse_page(response: &Response) -> Result<(), Failure> {
    let media_type = response.headers().get(CONTENT_TYPE);
    if media_type.is_some_and(|value| value.as_bytes().starts_with(b"text/html")) {
        return Err(web_page());
    }
    Ok(())
}

fn check_length(response: &Response, size: u64) -> Result<(), Failure> {
    match response.content_length() {
        Some(length) if length != size => Err(Failure::invalid(format!(
            "sends {length} bytes for a blob of {size} bytes"
        ))),
        _ => Ok(()),
    }
}

/// `Content-Range: bytes <from>-<last>/<size>` must be the range that was asked for.
fn check_range(response: &Response, from: u64, size: u64) -> Result<(), Failure> {
    let header = response.headers().get(CONTENT_RANGE);
    let text = header.and_then(|v| v.to_str().ok()).unwrap_or_default();
    if range_fits(text, from, size) {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "was asked for bytes {from} to the end of {size} and sends {:?}",
        text.chars().take(60).collect::<String>()
    )))
}

fn range_fits(text: &str, from: u64, size: u64) -> bool {
    let Some((range, total)) = text
        .strip_prefix("bytes ")
        .and_then(|range| range.split_once('/'))
    else {
        return false;
    };
    let first = range
        .split_once('-')
        .and_then(|(first, _)| first.parse().ok());
    first == Some(from) && (total == "*" || total.parse() == Ok(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_must_be_the_one_asked_for() {
        assert!(range_fits("bytes 5-9/10", 5, 10));
        assert!(range_fits("bytes 5-7/*", 5, 10));
        for bad in [
            "",
            "bytes 4-9/10",
            "bytes 5-9/11",
            "items 5-9/10",
            "bytes */10",
        ] {
            assert!(!range_fits(bad, 5, 10), "{bad}");
        }
    }
}
