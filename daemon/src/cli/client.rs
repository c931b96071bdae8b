//! The connection to the daemon, or to any other CRI runtime.

use std::io::ErrorKind;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use hyper_util::rt::TokioIo;
use nexcage_config::Config;
use nexcage_cri_api::v1::image_service_client::ImageServiceClient;
use nexcage_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::error::CliError;
use super::proto::checkpoints_client::CheckpointsClient;
use super::proto::images_client::ImagesClient;

/// What a call takes at most if it has no time limit of its own: kubelet's default.
const DEADLINE: Duration = Duration::from_secs(120);

/// An answer of `ExecSync` has up to 16 MiB of each stream.
const MESSAGE_MAX: usize = 64 << 20;

/// Clients for all that the socket serves.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) runtime: RuntimeServiceClient<Channel>,
    pub(super) images: ImageServiceClient<Channel>,
    /// nexcage's own; other runtimes answer `UNIMPLEMENTED`.
    pub(super) pulls: ImagesClient<Channel>,
    /// nexcage's own, too.
    pub(super) checkpoints: CheckpointsClient<Channel>,
}

/// The socket to use: the one given, or what the configuration file says. Blocking.
pub(super) fn socket(given: Option<String>) -> Result<Utf8PathBuf, CliError> {
    match given {
        // crictl wants its sockets as URLs.
        Some(path) => Ok(path.strip_prefix("unix://").unwrap_or(&path).into()),
        None => Ok(Config::load_default()?.kubernetes.cri_socket.to_path_buf()),
    }
}

impl Client {
    /// Connects, so that a missing daemon is told as such and not as a failed call.
    pub(super) async fn connect(socket: &Utf8Path) -> Result<Self, CliError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|e| refused(socket, e))?;
        drop(stream);
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(Duration::from_secs(5))
            .connect_with_connector(connector)
            .await
            .map_err(|e| CliError::Connect {
                socket: socket.to_owned(),
                source: e.into(),
            })?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_MAX),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX),
            pulls: ImagesClient::new(channel.clone()),
            checkpoints: CheckpointsClient::new(channel),
        })
    }
}

fn refused(socket: &Utf8Path, source: std::io::Error) -> CliError {
    let socket = socket.to_owned();
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => CliError::NoDaemon { socket },
        _ => CliError::Connect {
            socket,
            source: source.into(),
        },
    }
}

/// A request that is given up after the usual time.
pub(super) fn request<T>(message: T) -> Request<T> {
    request_within(message, DEADLINE)
}

/// A request that is given up after `limit`.
pub(super) fn request_within<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_be_a_url() {
        assert_eq!(
            socket(Some("unix:///run/x.sock".into())).unwrap(),
            "/run/x.sock"
        );
        assert_eq!(socket(Some("/run/x.sock".into())).unwrap(), "/run/x.sock");
    }

    #[tokio::test]
    async fn a_missing_daemon_is_told_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("none.sock");
        let error = Client::connect(&path).await.unwrap_err();
        assert!(matches!(error, CliError::NoDaemon { .. }), "{error}");
        // A socket that a daemon left behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = Client::connect(&path).await.unwrap_err();
        assert!(matches!(error, CliError::NoDaemon { .. }), "{error}");
    }
}
