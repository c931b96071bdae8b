//! Proving to a registry who is asking.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::challenge::Challenge;
use super::failure::{Failure, FailureKind, chain};
use super::http;
use crate::credentials::Credentials;

/// How long a token is good if its service does not say (distribution spec, "Token Response").
const DEFAULT_LIFETIME: u64 = 60;
/// Taken off a token's lifetime, so that it does not expire on the way.
const MARGIN: u64 = 10;
/// Largest answer of a token service, in bytes.
const MAX_TOKEN_ANSWER: u64 = 256 << 10;

/// The authentication of one pull at one host. Nothing in it is shared with another pull.
///
/// Credentials are sent after a challenge only, except a registry token, which is meant for the
/// registry as it is. A bearer challenge names the token service; the credentials go there,
/// by https unless the registry itself is a plain one.
#[derive(Debug)]
pub(super) struct Auth {
    credentials: Credentials,
    /// What is asked for when a challenge does not say: `repository:<path>:pull`.
    scope: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    header: Option<HeaderValue>,
    expires: Option<Instant>,
}

impl Auth {
    pub(super) fn new(credentials: Credentials, repository: &str) -> Self {
        let header = match &credentials {
            Credentials::RegistryToken(token) => secret(&format!("Bearer {token}")),
            _ => None,
        };
        Self {
            credentials,
            scope: format!("repository:{repository}:pull"),
            state: Mutex::new(State {
                header,
                expires: None,
            }),
        }
    }

    /// The header to send now.
    pub(super) async fn header(&self) -> Option<HeaderValue> {
        let mut state = self.state.lock().await;
        if state.expires.is_some_and(|end| end <= Instant::now()) {
            *state = State::default();
        }
        state.header.clone()
    }

    /// Answers challenges to a request that was sent with the header `used`. Says whether the request
    /// is worth repeating.
    pub(super) async fn answer(
        &self,
        client: &reqwest::Client,
        registry: &Url,
        challenges: &[Challenge],
        used: Option<&HeaderValue>,
        deadline: Duration,
    ) -> Result<bool, Failure> {
        if matches!(self.credentials, Credentials::RegistryToken(_)) {
            return Ok(false);
        }
        // Held while a token is fetched, so that parallel downloads fetch one.
        let mut state = self.state.lock().await;
        if state.header.is_some() && state.header.as_ref() != used {
            return Ok(true);
        }
        let scheme = |name: &str| challenges.iter().find(|c| c.scheme == name);
        if let Some(bearer) = scheme("bearer") {
            let token = self.token(client, registry, bearer, deadline).await?;
            let lifetime = token.expires_in.unwrap_or(DEFAULT_LIFETIME);
            let lifetime = lifetime.max(DEFAULT_LIFETIME).saturating_sub(MARGIN);
            state.expires = Instant::now().checked_add(Duration::from_secs(lifetime));
            state.header = token
                .token
                .or(token.access_token)
                .and_then(|token| secret(&format!("Bearer {token}")));
            if state.header.is_none() {
                return Err(Failure::invalid(
                    "its token service answered without a token",
                ));
            }
            return Ok(true);
        }
        if scheme("basic").is_some() {
            state.header = match &self.credentials {
                Credentials::Basic { username, password } => basic(username, password),
                Credentials::IdentityToken(_) => {
                    return Err(Failure::new(
                        FailureKind::Unauthorized,
                        "asks for user name and password, an identity token is of no use to it",
                    ));
                }
                Credentials::Anonymous | Credentials::RegistryToken(_) => None,
            };
            return Ok(state.header.is_some());
        }
        Ok(false)
    }

    async fn token(
        &self,
        client: &reqwest::Client,
        registry: &Url,
        challenge: &Challenge,
        deadline: Duration,
    ) -> Result<Token, Failure> {
        let realm = realm(registry, challenge)?;
        let host = realm.host_str().unwrap_or_default().to_owned();
        let service = challenge.get("service");
        let scope = challenge.get("scope").unwrap_or(&self.scope);
        let answered = match &self.credentials {
            Credentials::IdentityToken(token) => {
                refresh(client, realm, service, scope, token, deadline).await
            }
            _ => self.ask(client, realm, service, scope, deadline).await,
        };
        let read = match answered {
            Ok(response) => http::body(response, MAX_TOKEN_ANSWER, deadline).await,
            Err(failure) => Err(failure),
        };
        let body = read.map_err(|mut failure| {
            // Several services answer a bad password with 400 or 404.
            if matches!(failure.kind, FailureKind::Invalid | FailureKind::NotFound) {
                failure.kind = FailureKind::Unauthorized;
            }
            failure.detail = format!("its token service {host}: {}", failure.detail);
            failure
        })?;
        serde_json::from_slice(&body).map_err(|e| {
            Failure::invalid(format!(
                "its token service {host} does not answer with a token: {}",
                chain(&e)
            ))
        })
    }

    /// The token service's GET (distribution spec, "Token Authentication").
    async fn ask(
        &self,
        client: &reqwest::Client,
        mut realm: Url,
        service: Option<&str>,
        scope: &str,
        deadline: Duration,
    ) -> Result<Response, Failure> {
        {
            let mut query = realm.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", scope);
        }
        let authorization = match &self.credentials {
            Credentials::Basic { username, password } => basic(username, password),
            _ => None,
        };
        http::get(
            client,
            &realm,
            &HeaderMap::new(),
            &HeaderMap::new(),
            authorization.as_ref(),
            deadline,
        )
        .await?
        .expect(&[StatusCode::OK], deadline)
        .await
    }
}

/// The token service's POST (distribution spec, "OAuth2 Token Authentication"). Never redirected: the
/// secret is in the body.
async fn refresh(
    client: &reqwest::Client,
    realm: Url,
    service: Option<&str>,
    scope: &str,
    token: &str,
    deadline: Duration,
) -> Result<Response, Failure> {
    let form = [
        ("grant_type", "refresh_token"),
        ("service", service.unwrap_or_default()),
        ("client_id", "nexcage"),
        ("scope", scope),
        ("refresh_token", token),
    ];
    let response = http::send(client.post(realm).form(&form), deadline).await?;
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    Err(http::error_answer(response, deadline).await)
}

fn realm(registry: &Url, challenge: &Challenge) -> Result<Url, Failure> {
    let text = challenge
        .get("realm")
        .ok_or_else(|| Failure::invalid("asks for a token without naming a token service"))?;
    let realm = Url::parse(text)
        .map_err(|_| Failure::invalid("names a token service that is not a URL"))?;
    match (registry.scheme(), realm.scheme()) {
        (_, "https") | ("http", "http") => Ok(realm),
        _ => Err(Failure::invalid(
            "names a token service that is not reached by https, so it gets no credentials",
        )),
    }
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    secret(&format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    ))
}

/// A header that is never shown. None if the text cannot be one.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::challenge;

    #[test]
    fn secrets_do_not_leave_https() {
        let of = |registry: &str, header: &str| {
            realm(&Url::parse(registry).unwrap(), &challenge::parse(header)[0])
        };
        assert!(of("https://r/v2/", "Bearer realm=\"https://t/\"").is_ok());
        assert!(of("http://r/v2/", "Bearer realm=\"http://t/\"").is_ok());
        for bad in [
            "Bearer realm=\"http://t/\"",
            "Bearer realm=\"file:///t\"",
            "Bearer realm=\"t\"",
            "Bearer service=\"x\"",
        ] {
            assert!(of("https://r/v2/", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn authentication_is_never_shown() {
        let auth = Auth::new(Credentials::RegistryToken("s3cret".into()), "a/b");
        assert!(!format!("{auth:?}").contains("s3cret"));
    }
}
