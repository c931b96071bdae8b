//! An HTTPS server that answers byte for byte what a test says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

// Made with openssl by the calls that Proxmox makes, good for a hundred years; nothing outside these tests trusts them.
const CERTIFICATE: &[u8] = include_bytes!("tls/server.pem");
const KEY: &[u8] = include_bytes!("tls/server.key");

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The number of its connection.
    pub(super) connection: usize,
    /// `GET /api2/json/version`.
    pub(super) line: String,
    /// All headers, names in lower case.
    pub(super) head: String,
    pub(super) body: String,
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Sends this, and goes on.
    Send(String),
    /// Sends this, and closes the connection.
    Last(String),
    /// Sends this, and then nothing more.
    Stall(String),
}

/// An answer as Proxmox gives it. It closes the connection after an error.
pub(super) fn answer(status: &str, body: &str) -> Reply {
    let error = !status.starts_with('2');
    let text = format!(
        "HTTP/1.1 {status}\r\nCache-Control: max-age=0\r\nConnection: {}\r\nServer: pve-api-daemon/3.0\r\n\
         Content-Length: {}\r\nContent-Type: application/json;charset=UTF-8\r\n\r\n{body}",
        if error { "close" } else { "Keep-Alive" },
        body.len(),
    );
    match error {
        true => Reply::Last(text),
        false => Reply::Send(text),
    }
}

/// An answer that carries data.
pub(super) fn data(data: &serde_json::Value) -> Reply {
    answer("200 OK", &serde_json::json!({ "data": data }).to_string())
}

/// A refusal with the same words in the status line and in the body.
pub(super) fn refusal(status: u16, message: &str) -> Reply {
    let body = serde_json::json!({"data": null, "message": format!("{message}\n")});
    answer(&format!("{status} {message}"), &body.to_string())
}

/// A wrong token: words in the status line alone, and no length.
pub(super) fn unauthorized() -> Reply {
    let head = "HTTP/1.1 401 Authentication failed!\r\nConnection: close\r\nServer: pve-api-daemon/3.0\r\n\r\n";
    Reply::Last(head.into())
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

pub(super) struct Server {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let all = seen.clone();
        let accepting = tokio::spawn(async move {
            let acceptor = acceptor();
            let mut connections = tokio::task::JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, handler, all) = (acceptor.clone(), handler.clone(), all.clone());
                connections.spawn(serve(number, stream, acceptor, handler, all));
            }
        });
        Self {
            port,
            seen,
            accepting,
        }
    }

    /// The requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The first lines of the requests so far, without what all have in common.
    pub(super) fn lines(&self) -> Vec<String> {
        let seen = self.seen().into_iter();
        seen.map(|seen| seen.line.replace("/api2/json/", ""))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn acceptor() -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()],
            PrivateKeyDer::from_pem_slice(KEY).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(
    connection: usize,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
    all: Arc<Mutex<Vec<Seen>>>,
) {
    // Who does not trust us goes away.
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return;
    };
    while let Some(seen) = request(connection, &mut stream).await {
        all.lock().unwrap().push(seen.clone());
        let (text, then) = match handler(&seen) {
            Reply::Send(text) => (text, None),
            Reply::Last(text) => (text, Some(Duration::ZERO)),
            Reply::Stall(text) => (text, Some(Duration::from_secs(600))),
        };
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if let Some(pause) = then {
            tokio::time::sleep(pause).await;
            let _ = stream.shutdown().await;
            return;
        }
    }
}

async fn request(
    connection: usize,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, head) = head.split_once("\r\n").unwrap();
    let line = line.strip_suffix(" HTTP/1.1").unwrap();
    let mut lengths = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        (name == "content-length").then(|| value.parse::<usize>().unwrap())
    });
    let mut body = vec![0; lengths.next().unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen {
        connection,
        line: line.to_owned(),
        head: head.to_owned(),
        body: String::from_utf8(body).unwrap(),
    })
}
