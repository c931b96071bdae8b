//! gRPC over HTTP/2 on the Unix socket.
//!
//! Connections are served by hyper directly and not by tonic's own server, for one reason:
//! that ends a request at the client's `grpc-timeout` by itself, with `CANCELLED`, in a race with the client, which reports
//! `DEADLINE_EXCEEDED`, as kubelet and critest expect. Here the client alone keeps its deadline: when it gives up it
//! resets the stream, and the request's future is dropped.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use nexcage_cri_api::v1::image_service_server::ImageServiceServer;
use nexcage_cri_api::v1::runtime_service_server::RuntimeServiceServer;
use tokio::net::UnixListener;
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

/// Serves until the daemon is told to end, then lets requests under way finish for `drain`.
pub(crate) async fn serve(runtime: &Arc<Runtime>, listener: UnixListener, drain: Duration) {
    let routes = routes(runtime);
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
    // A stream that never ends must not keep the daemon.
    if tokio::time::timeout(drain, connections.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests under way did not finish in time");
    }
}

type Body = tonic::body::Body;

/// All services behind one path router.
fn routes(
    runtime: &Arc<Runtime>,
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
    let routes =
        routes.map_request(|request: http::Request<hyper::body::Incoming>| request.map(Body::new));
    tower::util::BoxCloneSyncService::new(routes)
}
