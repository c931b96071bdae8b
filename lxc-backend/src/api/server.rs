//! The API server as everything above sees it: requests that are authorized, repeated where that is harmless, and understood.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camino::Utf8PathBuf;
use http::Method;
use rustix::process::Uid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::form_urlencoded;

use super::answer::{self, Answer, AnswerError, Asked};
use super::error::PveError;
use super::token::Token;
use super::transport::{Asking, Transport, TransportError};

/// Pauses before a GET is sent again: long enough together for pveproxy to be restarted.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// The API server, and the token that opens it.
#[derive(Debug)]
pub(super) struct Server {
    url: String,
    transport: Transport,
    token_file: Utf8PathBuf,
    token_owner: Uid,
    /// As it was last read.
    token: Mutex<Option<Arc<Token>>>,
}

/// Something to be asked of the server: the transport of the crate proxmox-api.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    server: &'a Server,
    doing: &'a str,
}

impl Server {
    pub(super) fn new(
        url: String,
        transport: Transport,
        token_file: Utf8PathBuf,
        token_owner: Uid,
    ) -> Self {
        Self {
            url,
            transport,
            token_file,
            token_owner,
            token: Mutex::default(),
        }
    }

    /// What is to be done now, for messages: an imperative.
    pub(super) fn call<'a>(&'a self, doing: &'a str) -> Call<'a> {
        Call {
            server: self,
            doing,
        }
    }

    async fn token(&self) -> Result<Arc<Token>, PveError> {
        let known = self.lock().clone();
        match known {
            Some(token) => Ok(token),
            None => self.read_token().await,
        }
    }

    async fn read_token(&self) -> Result<Arc<Token>, PveError> {
        let (file, owner) = (self.token_file.clone(), self.token_owner);
        let reading = tokio::task::spawn_blocking(move || Token::read(&file, owner));
        let token = reading.await.map_err(|source| PveError::Setup {
            what: format!("the API token file {}", self.token_file),
            source: source.into(),
        })?;
        let token = Arc::new(token?);
        *self.lock() = Some(token.clone());
        Ok(token)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Token>>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Call<'a> {
    /// An imperative.
    pub(super) fn doing(&self) -> &'a str {
        self.doing
    }

    pub(super) fn asked(&self) -> Asked<'a> {
        Asked {
            url: &self.server.url,
            doing: self.doing,
        }
    }

    /// The answer makes no sense.
    pub(super) fn not_understood(&self, error: AnswerError) -> PveError {
        self.asked().unreachable(error)
    }

    /// The answer to a request, whatever its status. A token that is refused is read again, once: it may have been replaced.
    async fn answer(
        &self,
        method: Method,
        path: String,
        form: Option<String>,
    ) -> Result<Answer, PveError> {
        let mut token = self.server.token().await?;
        let mut asking = Asking {
            method,
            path,
            form,
            authorization: token.header(),
        };
        let mut reread = false;
        loop {
            let answer = self.persistent(&asking).await?;
            if answer.status != http::StatusCode::UNAUTHORIZED || reread {
                return Ok(answer);
            }
            reread = true;
            let now = self.server.read_token().await?;
            if now == token {
                return Ok(answer);
            }
            tracing::info!(token = ?now, "the Proxmox API token was replaced");
            token = now;
            asking.authorization = token.header();
        }
    }

    /// Sends a GET again when the connection breaks or a proxy cannot reach who should answer. Everything else may have been done
    /// although nobody said so, and is sent once.
    async fn persistent(&self, asking: &Asking) -> Result<Answer, PveError> {
        let mut pauses = PAUSES.iter();
        loop {
            let result = self.server.transport.exchange(asking).await;
            let passing = match &result {
                Ok(answer) => answer::is_passing(answer.status),
                Err(TransportError::Connect(_) | TransportError::Broken(_)) => true,
                Err(_) => false,
            };
            let pause = (passing && asking.method == Method::GET).then(|| pauses.next());
            match pause.flatten() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return result.map_err(|error| self.failure(error)),
            }
        }
    }

    fn failure(&self, error: TransportError) -> PveError {
        match error {
            TransportError::Setup(error) => error,
            TransportError::Slow { limit, .. } => PveError::Deadline {
                doing: self.doing.to_owned(),
                limit,
            },
            TransportError::Untrusted(_) => PveError::Setup {
                what: format!(
                    "the Proxmox API at {}, checked with {} (proxmox.ca_file),",
                    self.server.url,
                    self.server.transport.ca_file()
                ),
                source: error.into(),
            },
            error => self.asked().unreachable(error),
        }
    }
}

impl proxmox_api::client::Client for Call<'_> {
    type Error = PveError;

    async fn request_with_body_and_query<B, Q, R>(
        &self,
        method: proxmox_api::client::Method,
        path: &str,
        body: Option<&B>,
        query: Option<&Q>,
    ) -> Result<R, PveError>
    where
        B: Serialize,
        Q: Serialize,
        R: DeserializeOwned,
    {
        let form = body.map(|body| self.form(body)).transpose()?;
        let query = query.map(|query| self.form(query)).transpose()?;
        let path = match query.filter(|query| !query.is_empty()) {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let answer = self.answer(method_of(method), path, form).await?;
        answer::value(&answer, self.asked())
    }
}

impl Call<'_> {
    /// Parameters as Proxmox takes them: an object of scalars, or nothing.
    fn form(&self, parameters: impl Serialize) -> Result<String, PveError> {
        let parameters = serde_json::to_value(parameters);
        let parameters = parameters.map_err(|e| self.asked().unreachable(e))?;
        form(&parameters).ok_or_else(|| {
            self.asked()
                .unreachable("a parameter is neither text nor number")
        })
    }
}

fn form(parameters: &Value) -> Option<String> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    match parameters {
        Value::Null => {}
        Value::Object(parameters) => {
            for (key, value) in parameters {
                match value {
                    Value::String(text) => form.append_pair(key, text),
                    Value::Number(number) => form.append_pair(key, &number.to_string()),
                    Value::Bool(yes) => form.append_pair(key, if *yes { "1" } else { "0" }),
                    _ => return None,
                };
            }
        }
        _ => return None,
    }
    Some(form.finish())
}

fn method_of(method: proxmox_api::client::Method) -> Method {
    match method {
        proxmox_api::client::Method::Get => Method::GET,
        proxmox_api::client::Method::Post => Method::POST,
        proxmox_api::client::Method::Put => Method::PUT,
        proxmox_api::client::Method::Delete => Method::DELETE,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_are_a_form() {
        assert_eq!(
            form(&json!({"timeout": 60, "forceStop": true})).unwrap(),
            "forceStop=1&timeout=60"
        );
        assert_eq!(
            form(&json!({"a": "x &=;é"})).unwrap(),
            "a=x+%26%3D%3B%C3%A9"
        );
        assert_eq!(form(&json!({})).unwrap(), "");
        assert_eq!(form(&Value::Null).unwrap(), "");
        assert_eq!(form(&json!({"a": [1]})), None);
        assert_eq!(form(&json!([1])), None);
    }
}
