//! One request over TLS, and one answer: connections that are kept, deadlines, a bound on what is read.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::ext::ReasonPhrase;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use url::Url;

use super::answer::{Answer, excerpt};
use super::error::PveError;
use super::trust::Trust;

/// Connections at a time. pveproxy has three workers; what is more waits here, in order.
const MAX_CONNECTIONS: usize = 8;

/// How long a connection may be idle and still be used: pveproxy closes after five seconds, perhaps just when it is used.
const MAX_IDLE: Duration = Duration::from_secs(4);

/// Longest answer, in bytes. A thousand containers are listed in less than one MiB.
const MAX_BODY: usize = 8 << 20;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until the connection is there, TLS included.
    pub(super) connect: Duration,
    /// From the request to the head of the answer, and before it for one of the connections to be free.
    pub(super) head: Duration,
    /// From the head of the answer to its end.
    pub(super) body: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            // pveproxy gives pvedaemon 30 s, and then says so itself.
            head: Duration::from_secs(35),
            body: Duration::from_secs(10),
        }
    }
}

/// A request, which may have to be sent more than once.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) method: Method,
    /// Path and query below `/api2/json`.
    pub(super) path: String,
    /// `application/x-www-form-urlencoded`, for POST and PUT.
    pub(super) form: Option<String>,
    /// The value of `Authorization`.
    pub(super) authorization: HeaderValue,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// The certificate authority's file.
    #[error(transparent)]
    Setup(PveError),
    /// The certificate is not one of the authority's.
    #[error("its certificate is not trusted")]
    Untrusted(#[source] rustls::Error),
    /// The request was not sent.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The request may have been sent.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The request may have been sent.
    #[error("no {what} within {} s", limit.as_secs_f64())]
    Slow { what: &'static str, limit: Duration },
    #[error("the answer has more than {MAX_BODY} bytes")]
    TooLong,
    /// The request cannot be made of what was given.
    #[error("that is no HTTP request")]
    Request(#[source] http::Error),
}

/// The API server, and the connections to it.
#[derive(Debug)]
pub(super) struct Transport {
    host: String,
    port: u16,
    name: ServerName<'static>,
    /// What is before `/api2`, without a slash at its end.
    base: String,
    trust: Trust,
    limits: Limits,
    slots: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

/// A connection that nobody uses at the moment.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes. Ends with the connection, and with this.
    driver: JoinHandle<()>,
    since: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What is wrong with a URL.
#[derive(Debug, thiserror::Error)]
#[error("it is no https:// URL with a host")]
pub(super) struct UrlError;

impl Transport {
    pub(super) fn new(url: &Url, trust: Trust, limits: Limits) -> Result<Self, UrlError> {
        if url.scheme() != "https" {
            return Err(UrlError);
        }
        let host = url.host_str().ok_or(UrlError)?;
        // An IPv6 address has brackets in a URL and nowhere else.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            name: ServerName::try_from(bare.to_owned()).map_err(|_| UrlError)?,
            host: bare.to_owned(),
            port: url.port_or_known_default().ok_or(UrlError)?,
            base: url.path().trim_end_matches('/').to_owned(),
            trust,
            limits,
            slots: Semaphore::new(MAX_CONNECTIONS),
            idle: Mutex::default(),
        })
    }

    /// The file of the certificate authority.
    pub(super) fn ca_file(&self) -> &camino::Utf8PathBuf {
        self.trust.file()
    }

    /// Sends a request and reads its answer. Dropping the future closes the connection.
    pub(super) async fn exchange(&self, asking: &Asking) -> Result<Answer, TransportError> {
        // Never closed.
        let _slot = within("free connection", self.limits.head, self.slots.acquire()).await?;
        while let Some(kept) = self.take() {
            // Whether the request was sent over a kept connection that turns out to be closed is known for sure: if not, it comes back.
            if let Some(answer) = self.over(kept, asking).await? {
                return Ok(answer);
            }
        }
        let fresh = self.connect().await?;
        match self.over(fresh, asking).await? {
            Some(answer) => Ok(answer),
            None => Err(TransportError::Connect(
                io::ErrorKind::ConnectionReset.into(),
            )),
        }
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < MAX_IDLE);
        idle.pop()
    }

    fn keep(&self, mut connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        connection.since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(connection);
    }

    async fn connect(&self) -> Result<Connection, TransportError> {
        let opening = async {
            let tls = self.trust.config().await.map_err(TransportError::Setup)?;
            let stream = TcpStream::connect((self.host.as_str(), self.port))
                .await
                .map_err(TransportError::Connect)?;
            // One small write for each request: waiting for more only delays it.
            stream.set_nodelay(true).map_err(TransportError::Connect)?;
            let stream = TlsConnector::from(tls)
                .connect(self.name.clone(), stream)
                .await
                .map_err(tls_error)?;
            handshake(TokioIo::new(stream))
                .await
                .map_err(TransportError::Broken)
        };
        let (sender, connection) = within("connection", self.limits.connect, opening).await??;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer is told of errors.
            let _ = connection.await;
        });
        Ok(Connection {
            sender,
            driver,
            since: Instant::now(),
        })
    }

    /// `None` if the connection was closed before the request was sent.
    async fn over(
        &self,
        mut connection: Connection,
        asking: &Asking,
    ) -> Result<Option<Answer>, TransportError> {
        let request = self.request(asking)?;
        let sending = async {
            if connection.sender.ready().await.is_err() {
                return Ok(None);
            }
            match connection.sender.try_send_request(request).await {
                Ok(response) => Ok(Some(response)),
                Err(mut failed) => match failed.take_message() {
                    Some(_unsent) => Ok(None),
                    None => Err(TransportError::Broken(failed.into_error())),
                },
            }
        };
        let Some(response) = within("answer", self.limits.head, sending).await?? else {
            return Ok(None);
        };
        let answer = within("end of the answer", self.limits.body, read(response)).await??;
        self.keep(connection);
        Ok(Some(answer))
    }

    fn request(&self, asking: &Asking) -> Result<Request<Full<Bytes>>, TransportError> {
        let host = match (&self.name, self.port) {
            (ServerName::IpAddress(rustls::pki_types::IpAddr::V6(_)), port) => {
                format!("[{}]:{port}", self.host)
            }
            (_, port) => format!("{}:{port}", self.host),
        };
        let mut request = Request::builder()
            .method(&asking.method)
            .uri(format!("{}/api2/json{}", self.base, asking.path))
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, &asking.authorization)
            .header(
                header::USER_AGENT,
                concat!("nexcage/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(form) = &asking.form {
            // hyper leaves the length of an empty body out.
            request = request
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::CONTENT_LENGTH, form.len());
        }
        let body = asking.form.clone().unwrap_or_default();
        request
            .body(Full::new(body.into()))
            .map_err(TransportError::Request)
    }
}

/// Reads the whole answer.
async fn read(response: Response<Incoming>) -> Result<Answer, TransportError> {
    let (head, mut body) = response.into_parts();
    let reason = head.extensions.get::<ReasonPhrase>();
    let reason = reason.map(|reason| excerpt(&String::from_utf8_lossy(reason.as_bytes())));
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(TransportError::TooLong);
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(TransportError::Broken)?;
        // Trailers say nothing that anybody wants to know.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > MAX_BODY {
            return Err(TransportError::TooLong);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Answer {
        status: head.status,
        reason,
        body: whole.freeze(),
    })
}

/// Tells a certificate that is not trusted, which stays so, from a connection that broke.
fn tls_error(error: io::Error) -> TransportError {
    let rustls = error.get_ref().and_then(|e| e.downcast_ref());
    match rustls {
        Some(untrusted @ rustls::Error::InvalidCertificate(_)) => {
            TransportError::Untrusted(untrusted.clone())
        }
        _ => TransportError::Connect(error),
    }
}

async fn within<T>(
    what: &'static str,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, TransportError> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| TransportError::Slow { what, limit })
}
