//! A registry in this process, over real TCP, that can misbehave.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::image::TestImage;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// How clients must prove themselves.
#[derive(Clone, Debug)]
pub(crate) enum Auth {
    Open,
    /// User name and password at the registry itself.
    Basic(&'static str, &'static str),
    /// A token from `/token`, for this user, or for anybody if none is given.
    Bearer(Option<(&'static str, &'static str)>),
    /// A token from `/token` for this refresh token.
    Refresh(&'static str),
    /// This access token.
    Token(&'static str),
}

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Another answer altogether.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The connection breaks after so many bytes of the body.
    Cut(usize),
    /// Nothing more comes after so many bytes of the body.
    Stall(usize),
    /// The body in small pieces with pauses, in milliseconds.
    Slow(u64),
    /// As if there were no Range header.
    IgnoreRange,
    /// 416, as if nothing were there.
    RefuseRange,
    /// These bytes, of whatever length, without Content-Length.
    Bytes(Vec<u8>),
    /// Never an answer.
    Silence,
}

struct Rule {
    path: String,
    times: usize,
    fault: Fault,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) body: String,
}

struct World {
    auth: Auth,
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, (String, Vec<u8>)>,
    rules: VecDeque<Rule>,
    seen: Vec<Seen>,
    address: SocketAddr,
    tls: bool,
    tokens: usize,
}

/// The registry. Ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Registry {
    world: Arc<Mutex<World>>,
    pub(crate) address: SocketAddr,
}

impl Registry {
    pub(crate) async fn start() -> Self {
        Self::serve(None).await
    }

    pub(crate) async fn start_tls(tls: tokio_rustls::TlsAcceptor) -> Self {
        Self::serve(Some(tls)).await
    }

    async fn serve(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World {
            auth: Auth::Open,
            blobs: HashMap::new(),
            manifests: HashMap::new(),
            rules: VecDeque::new(),
            seen: Vec::new(),
            address,
            tls: tls.is_some(),
            tokens: 0,
        }));
        let shared = world.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let world = shared.clone();
                let tls = tls.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(world.clone(), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => {
                            let _ = http.serve_connection(TokioIo::new(stream), service).await;
                        }
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                let _ = http.serve_connection(TokioIo::new(stream), service).await;
                            }
                        }
                    }
                });
            }
        });
        Self { world, address }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.world.lock().unwrap().tls {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// `127.0.0.1:<port>/<rest>`
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    pub(crate) fn require(&self, auth: Auth) {
        self.world.lock().unwrap().auth = auth;
    }

    /// Puts an image under a tag, and under its digest.
    pub(crate) fn push(&self, repository: &str, tag: &str, image: &TestImage) {
        let mut world = self.world.lock().unwrap();
        for (digest, bytes) in image.blobs() {
            world.blobs.insert(digest, bytes);
        }
        drop(world);
        self.push_manifest(repository, tag, image.media_type(), image.manifest());
    }

    pub(crate) fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) {
        let digest = nexcage_image_store::Digest::of(bytes).to_string();
        let mut world = self.world.lock().unwrap();
        for name in [tag, &digest] {
            world.manifests.insert(
                format!("{repository}/{name}"),
                (media_type.to_owned(), bytes.to_vec()),
            );
        }
    }

    /// The next `times` requests whose path contains `path` go wrong.
    pub(crate) fn fault(&self, path: &str, times: usize, fault: Fault) {
        self.world.lock().unwrap().rules.push_back(Rule {
            path: path.to_owned(),
            times,
            fault,
        });
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.world.lock().unwrap().seen.clone()
    }

    /// Requests whose path contains `path`.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|s| s.path.contains(path)).count()
    }

    pub(crate) fn forget_seen(&self) {
        self.world.lock().unwrap().seen.clear();
    }
}

async fn answer(
    world: Arc<Mutex<World>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|v| v.to_str().unwrap().to_owned())
    };
    let mut seen = Seen {
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        authorization: header("authorization"),
        range: header("range"),
        body: String::new(),
    };
    let post = request.method() == hyper::Method::POST;
    let body = request.into_body().collect().await.unwrap().to_bytes();
    seen.body = String::from_utf8(body.to_vec()).unwrap();
    let fault = {
        let mut world = world.lock().unwrap();
        world.seen.push(seen.clone());
        let at = world
            .rules
            .iter()
            .position(|rule| rule.times > 0 && seen.path.contains(&rule.path));
        at.map(|at| {
            world.rules[at].times -= 1;
            world.rules[at].fault.clone()
        })
    };
    if matches!(fault, Some(Fault::Silence)) {
        return std::future::pending().await;
    }
    let mut world = world.lock().unwrap();
    if let Some(Fault::Answer(status, headers, body)) = fault {
        return Ok(plain(status, &headers, body));
    }
    if seen.path == "/token" {
        return Ok(world.token(&seen, post));
    }
    if let Some(refusal) = world.refuse(&seen) {
        return Ok(refusal);
    }
    Ok(world.content(&seen, fault))
}

impl World {
    fn token(&mut self, seen: &Seen, post: bool) -> Response<Body> {
        let good = match (&self.auth, post) {
            (Auth::Bearer(None), false) => true,
            (Auth::Bearer(Some((user, password))), false) => {
                seen.authorization.as_deref() == Some(&basic(user, password))
            }
            (Auth::Refresh(token), true) => {
                seen.body.contains("grant_type=refresh_token")
                    && seen.body.contains(&format!("refresh_token={token}"))
                    && seen.body.contains("service=test")
            }
            _ => false,
        };
        if !good {
            let body = br#"{"details":"incorrect username or password"}"#.to_vec();
            return plain(401, &[], body);
        }
        self.tokens += 1;
        plain(
            200,
            &[],
            format!(r#"{{"token":"granted-{}","expires_in":300}}"#, self.tokens).into_bytes(),
        )
    }

    fn refuse(&self, seen: &Seen) -> Option<Response<Body>> {
        let shown = seen.authorization.as_deref();
        let bearer = format!(
            "Bearer realm=\"{}://{}/token\",service=\"test\",scope=\"repository:{}:pull\"",
            if self.tls { "https" } else { "http" },
            self.address,
            "app"
        );
        let challenge = match &self.auth {
            Auth::Open => return None,
            Auth::Basic(user, password) if shown == Some(&basic(user, password)) => return None,
            Auth::Basic(..) => "Basic realm=\"test\"".to_owned(),
            Auth::Bearer(_) | Auth::Refresh(_)
                if self.tokens > 0 && shown == Some(&format!("Bearer granted-{}", self.tokens)) =>
            {
                return None;
            }
            Auth::Token(token) if shown == Some(&format!("Bearer {token}")) => return None,
            _ => bearer,
        };
        let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Some(plain(
            401,
            &[("www-authenticate", challenge)],
            body.to_vec(),
        ))
    }

    fn content(&self, seen: &Seen, fault: Option<Fault>) -> Response<Body> {
        let rest = seen.path.strip_prefix("/v2/").unwrap_or_default();
        let (media_type, bytes) = if let Some((repository, name)) = rest.split_once("/manifests/") {
            match self.manifests.get(&format!("{repository}/{name}")) {
                Some((media_type, bytes)) => (media_type.clone(), bytes.clone()),
                None => {
                    let body =
                        br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                    return plain(404, &[], body.to_vec());
                }
            }
        } else if let Some((_, digest)) = rest.split_once("/blobs/") {
            match self.blobs.get(digest) {
                Some(bytes) => ("application/octet-stream".to_owned(), bytes.clone()),
                None => return plain(404, &[], Vec::new()),
            }
        } else {
            return plain(404, &[], Vec::new());
        };
        let total = bytes.len();
        let ignores = matches!(fault, Some(Fault::IgnoreRange));
        let from = seen.range.as_deref().filter(|_| !ignores).map(|range| {
            let range = range.strip_prefix("bytes=").unwrap();
            range.strip_suffix('-').unwrap().parse::<usize>().unwrap()
        });
        if from.is_some() && matches!(fault, Some(Fault::RefuseRange)) {
            return plain(416, &[], Vec::new());
        }
        let bytes = bytes[from.unwrap_or(0)..].to_vec();
        let mut response = Response::builder().header("content-type", media_type);
        response = match from {
            None => response.status(200),
            Some(from) => response.status(206).header(
                "content-range",
                format!("bytes {from}-{}/{total}", total - 1),
            ),
        };
        match fault {
            Some(Fault::Bytes(other)) => response.body(whole(other)).unwrap(),
            Some(Fault::Cut(at)) => response
                .header("content-length", bytes.len())
                .body(broken(&bytes[..at.min(bytes.len())], true))
                .unwrap(),
            Some(Fault::Stall(at)) => response
                .header("content-length", bytes.len())
                .body(broken(&bytes[..at.min(bytes.len())], false))
                .unwrap(),
            Some(Fault::Slow(pause)) => response
                .header("content-length", bytes.len())
                .body(slow(&bytes, pause))
                .unwrap(),
            _ => response
                .header("content-length", bytes.len())
                .body(whole(bytes))
                .unwrap(),
        }
    }
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    let plain = format!("{user}:{password}");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(plain)
    )
}

fn plain(status: u16, headers: &[(&'static str, String)], body: Vec<u8>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(whole(body)).unwrap()
}

/// Chunked: no length is announced unless a header says so.
fn whole(bytes: Vec<u8>) -> Body {
    let frame = Ok(Frame::data(Bytes::from(bytes)));
    UnsyncBoxBody::new(StreamBody::new(stream::iter([frame])))
}

/// Some bytes, and then the end of the connection or nothing.
fn broken(bytes: &[u8], cut: bool) -> Body {
    let first = Ok(Frame::data(Bytes::copy_from_slice(bytes)));
    let then = stream::once(async move {
        // The bytes have to be on their way before the connection ends.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if !cut {
            std::future::pending::<()>().await;
        }
        Err(std::io::Error::other("cut"))
    });
    UnsyncBoxBody::new(StreamBody::new(stream::iter([first]).chain(then)))
}

fn slow(bytes: &[u8], pause: u64) -> Body {
    let pieces: Vec<Bytes> = bytes
        .chunks(bytes.len().div_ceil(10).max(1))
        .map(Bytes::copy_from_slice)
        .collect();
    let pieces = stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        Ok(Frame::data(piece))
    });
    UnsyncBoxBody::new(StreamBody::new(pieces))
}
