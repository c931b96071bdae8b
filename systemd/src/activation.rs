//! The socket that a socket unit listens on for us.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::net::{AddressFamily, SocketType, sockopt};

/// The sockets that systemd passed cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// `LISTEN_FDS` or `LISTEN_PID` make no sense.
    #[error("the environment of socket activation (LISTEN_FDS, LISTEN_PID) is not valid")]
    Environment(#[source] std::io::Error),
    /// More than one socket was passed.
    #[error(
        "systemd passed {count} sockets; nexcage takes one: have a single ListenStream= in the socket unit"
    )]
    TooMany {
        /// How many.
        count: usize,
    },
    /// It is not a listening Unix stream socket.
    #[error(
        "the socket that systemd passed is not a listening Unix stream socket: use ListenStream= with an absolute path"
    )]
    WrongKind,
    /// The socket could not be examined or prepared.
    #[error("the socket that systemd passed cannot be used")]
    Io(#[source] std::io::Error),
}

/// The listening Unix socket passed by systemd (sd_listen_fds(3)), close-on-exec and
/// non-blocking, or `None` when there is none for this process.
///
/// Call at most once: a second call would own the same file descriptor again.
///
/// # Errors
///
/// Any [`ActivationError`].
pub fn activated_listener() -> Result<Option<UnixListener>, ActivationError> {
    let mut fds = sd_notify::listen_fds().map_err(ActivationError::Environment)?;
    let count = fds.len();
    let Some(fd) = fds.next() else {
        return Ok(None);
    };
    if count > 1 {
        return Err(ActivationError::TooMany { count });
    }
    // SAFETY: the service manager opened this descriptor for us and nothing else in the process knows of it; the
    // caller asks once.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    listener(fd).map(Some)
}

fn listener(fd: OwnedFd) -> Result<UnixListener, ActivationError> {
    let io = |e: rustix::io::Errno| ActivationError::Io(e.into());
    let unix = sockopt::socket_domain(&fd).map_err(io)? == AddressFamily::UNIX;
    let stream = sockopt::socket_type(&fd).map_err(io)? == SocketType::STREAM;
    if !unix || !stream || !sockopt::socket_acceptconn(&fd).map_err(io)? {
        return Err(ActivationError::WrongKind);
    }
    let listener = UnixListener::from(fd);
    listener
        .set_nonblocking(true)
        .map_err(ActivationError::Io)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_listening_unix_socket_only() {
        let dir = tempfile::tempdir().unwrap();
        let good = UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(listener(good.into()).is_ok());

        let (connected, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(
            listener(connected.into()),
            Err(ActivationError::WrongKind)
        ));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(
            listener(tcp.into()),
            Err(ActivationError::WrongKind)
        ));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(listener(file.into()), Err(ActivationError::Io(_))));
    }
}
