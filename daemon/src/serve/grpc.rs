//! gRPC over HTTP/2 on the Unix socket.
//!
//! Connections are served by hyper directly and not by tonic's own server, for one reason:
//! that ends a request at the client's `grpc-timeout` by itself, with `CANCELLED`, in a race with the client, which reports
//! `DEADLINE_EXCEEDED`, as kubelet and critest expect. Here the client alone keeps its deadline: when it gives up it
//! resets the stream, and the request's future is dropped.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use nexcage_cri_api::v1::image_service_server::ImageServiceServer;
use nexcage_cri_api::v1::runtime_service_server::RuntimeServiceServer;
use tokio::net::UnixListener;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower::ServiceExt;

use crate::runtime::Runtime;
use crate::{admin, cri};

/// Largest message either way, in bytes: what kubelet's client accepts.
const MESSAGE_LIMIT: usize = 16 << 20;

/// Requests of one connection at the same time. kubelet has one connection and a few dozen requests.
const STREAMS: u32 = 1024;

/// Pause after a failed accept: out of file descriptors does not pass by asking again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time that answers have to leave and clients to close, once no request is under way. An idle client may not even notice.
const GOODBYE: Duration = Duration::from_millis(500);

/// Serves until the daemon is told to end, then lets requests under way finish for `drain`.
pub(crate) async fn serve(runtime: &Arc<Runtime>, listener: UnixListener, drain: Duration) {
    let requests = TaskTracker::new();
    let routes = routes(runtime, &requests);
    let mut http = Builder::new(TokioExecutor::new()).http2_only();
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS);
    let connections = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            // Cancel-safe per docs on `UnixListener::accept`.
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            // Cancel-safe per docs on `CancellationToken::cancelled`.
            () = runtime.stopping.cancelled() => break,
        };
        let service = TowerToHyperService::new(routes.clone());
        let connection = http
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let served = connections.watch(connection);
        // Ends with the client, or at the end of the drain below with the async runtime.
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(error = %error, "a connection ended badly");
            }
        });
    }
    drop(listener);
    requests.close();
    let finish = async {
        // A stream that never ends must not keep the daemon.
        if tokio::time::timeout(drain, requests.wait()).await.is_err() {
            tracing::warn!("requests under way did not finish in time");
        }
        tokio::time::sleep(GOODBYE).await;
    };
    tokio::select! {
        // Cancel-safe: it only waits, and nobody asks again.
        () = connections.shutdown() => {}
        // Cancel-safe: likewise.
        () = finish => {}
    }
}

type Body = tonic::body::Body;

/// All services behind one path router. What is being answered is counted in `requests`, to the last byte.
fn routes(
    runtime: &Arc<Runtime>,
    requests: &TaskTracker,
) -> tower::util::BoxCloneSyncService<
    http::Request<hyper::body::Incoming>,
    http::Response<Body>,
    Infallible,
> {
    let pods = RuntimeServiceServer::new(cri::Pods::new(Arc::clone(runtime)))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let images = ImageServiceServer::new(cri::Images::new(Arc::clone(runtime)))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let routes = Routes::new(pods)
        .add_service(images)
        .add_service(admin::images(Arc::clone(runtime)))
        .add_service(admin::checkpoints(Arc::clone(runtime)))
        .prepare();
    let requests = requests.clone();
    let counted = tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (routes, under_way) = (routes.clone(), requests.token());
        async move {
            let response = routes.oneshot(request.map(Body::new)).await?;
            let frames = move |body: Body| {
                Body::new(body.map_frame(move |frame| {
                    let _until_dropped = &under_way;
                    frame
                }))
            };
            Ok(response.map(frames))
        }
    });
    tower::util::BoxCloneSyncService::new(counted)
}
