//! HTTPS: connections as pveproxy treats them. Five idle seconds and every error end one; bodies are forms and never chunked; refused tokens
//! are answered late.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Api;
use super::request::{Request, Response, parse_form};
use crate::misbehave::{Http, Misbehaviour};

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(5);

/// How late a refused token is told so.
const LATE: Duration = Duration::from_secs(3);

/// Longest body of a request, in bytes.
const MAX_BODY: usize = 512 << 10;

type Body = BoxBody<Bytes, std::io::Error>;
type Answer = hyper::Response<Body>;

/// Serves connections until it is dropped.
pub async fn serve(api: Api, listener: TcpListener, tls: TlsAcceptor) {
    let log = File::options()
        .append(true)
        .create(true)
        .open(api.node().house().access_log());
    let server = Arc::new(Server {
        api,
        log: Mutex::new(log.ok()),
    });
    let mut connections = JoinSet::new();
    loop {
        // Both are cancel-safe: nothing is accepted or joined half.
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(server.clone(), stream, tls.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Server {
    api: Api,
    log: Mutex<Option<File>>,
}

async fn connection(server: Arc<Server>, stream: TcpStream, tls: TlsAcceptor) {
    // Who does not trust us goes away.
    let Ok(Ok(stream)) = tokio::time::timeout(IDLE, tls.accept(stream)).await else {
        return;
    };
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A client may go away whenever it likes.
    let _ = served;
}

impl Server {
    async fn answer(&self, request: hyper::Request<Incoming>) -> Answer {
        let line = format!("{} {}", request.method(), request.uri());
        if let Some(http) = Misbehaviour::read(self.api.node().house()).http {
            self.log(&line, 0, "-");
            return misbehave(http).await;
        }
        let response = match read(request).await {
            Ok(request) => {
                let api = self.api.clone();
                let answered = tokio::task::spawn_blocking(move || api.answer(&request)).await;
                answered.unwrap_or_else(|error| Response::words(500, &error.to_string()))
            }
            Err(response) => response,
        };
        self.log(&line, response.status, &response.user);
        if response.late {
            tokio::time::sleep(LATE).await;
        }
        http_answer(response)
    }

    fn log(&self, line: &str, status: u16, user: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &mut *log {
            let _ = writeln!(file, "{line} {status} {user}");
        }
    }
}

/// Reads a request, or says what pveproxy says of one that it does not take.
async fn read(request: hyper::Request<Incoming>) -> Result<Request, Response> {
    let (head, body) = request.into_parts();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(encoding) = header(header::TRANSFER_ENCODING) {
        let words = match encoding.eq_ignore_ascii_case("chunked") {
            true => "chunked transfer encoding not supported".to_owned(),
            false => format!("Unknown transfer encoding '{encoding}'"),
        };
        return Err(Response::words(501, &words));
    }
    let length = header(header::CONTENT_LENGTH).and_then(|text| text.parse::<usize>().ok());
    let length = length.unwrap_or(0);
    let path = crate::conf::decode(head.uri.path());
    let Some(path) = path.strip_prefix("/api2/json") else {
        return Err(not_api(&path));
    };
    let takes_body = matches!(head.method, Method::POST | Method::PUT);
    if length > 0 && !takes_body {
        let words = format!("Unexpected content for method '{}'", head.method);
        return Err(Response::words(501, &words));
    }
    if length > MAX_BODY {
        return Err(Response::words(501, "for data too large"));
    }
    let mut parameters = parse_form(head.uri.query().unwrap_or_default());
    let form = Limited::new(body, MAX_BODY).collect().await;
    let form = form
        .map_err(|error| Response::words(400, &error.to_string()))?
        .to_bytes();
    let kind = header(header::CONTENT_TYPE).unwrap_or("application/x-www-form-urlencoded");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind {
        _ if form.is_empty() => {}
        "application/x-www-form-urlencoded" => {
            parameters.extend(parse_form(&String::from_utf8_lossy(&form)));
        }
        "application/json" => parameters.extend(json_parameters(&form)?),
        other => {
            let words = format!("upload 'Content-Type '{other}' not implemented");
            return Err(Response::words(506, &words));
        }
    }
    Ok(Request {
        method: head.method.to_string(),
        path: path.to_owned(),
        parameters,
        authorization: header(header::AUTHORIZATION).map(str::to_owned),
    })
}

fn json_parameters(body: &[u8]) -> Result<super::Parameters, Response> {
    let bad = |words: &str| Response::words(500, words);
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|e| bad(&e.to_string()))?;
    let object = value.as_object().ok_or_else(|| bad("malformed JSON"))?;
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Bool(yes) => u8::from(*yes).to_string(),
        other => other.to_string(),
    };
    Ok(object
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect())
}

/// What is outside of the API: the web interface's page, and nothing else.
fn not_api(path: &str) -> Response {
    match path {
        _ if path.starts_with("/api2") => Response::words(501, "no such uri"),
        _ => Response::words(500, &format!("no such file '{path}'")),
    }
}

fn http_answer(response: Response) -> Answer {
    let status = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = response
        .body
        .map(|body| body.to_string())
        .unwrap_or_default();
    let mut answer = hyper::Response::new(whole(body));
    *answer.status_mut() = status;
    if let Ok(reason) = ReasonPhrase::try_from(response.reason.as_bytes())
        && !response.reason.is_empty()
    {
        answer.extensions_mut().insert(reason);
    }
    let headers = answer.headers_mut();
    let mut set = |name, value| drop(headers.insert(name, header::HeaderValue::from_static(value)));
    set(header::SERVER, "pve-api-daemon/3.0");
    set(header::CACHE_CONTROL, "max-age=0");
    set(header::PRAGMA, "no-cache");
    set(header::CONTENT_TYPE, "application/json;charset=UTF-8");
    if response.status >= 400 {
        set(header::CONNECTION, "close");
    }
    answer
}

async fn misbehave(how: Http) -> Answer {
    match how {
        Http::Status(status, words) => http_answer(Response::words(status, &words)),
        Http::Html => {
            let page = "<!DOCTYPE html>\n<html><head><title>It works!</title></head></html>\n";
            let mut answer = hyper::Response::new(whole(page.to_owned()));
            let html = header::HeaderValue::from_static("text/html");
            answer.headers_mut().insert(header::CONTENT_TYPE, html);
            answer
        }
        // Until the client gives up, and so this is dropped.
        Http::Stall => std::future::pending().await,
        Http::Truncated => hyper::Response::new(truncated()),
    }
}

fn whole(text: String) -> Body {
    let full = Full::new(Bytes::from(text));
    full.map_err(|never: Infallible| match never {}).boxed()
}

/// The beginning of an answer, and then an error, which breaks the connection.
fn truncated() -> Body {
    let begin = Ok(Frame::data(Bytes::from_static(b"{\"data\":")));
    let end = Err(std::io::ErrorKind::ConnectionReset.into());
    let frames: Vec<Result<Frame<Bytes>, std::io::Error>> = vec![begin, end];
    let stream: Pin<Box<_>> = Box::pin(futures_util::stream::iter(frames));
    StreamBody::new(stream).boxed()
}
