//! The Unix socket that kubelet talks to.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// The right to be the daemon of a socket and of a state directory. It is taken before anything is touched, and the socket
/// opened only when there is somebody to answer: a client that connects too early would wait, and give up.
#[derive(Debug)]
pub(crate) struct Claim {
    path: Utf8PathBuf,
    /// From systemd, which listens already.
    passed: Option<UnixListener>,
    /// The file at `path` is ours to remove.
    own: bool,
    /// Locked as long as the daemon lives, however it ends.
    _lock: File,
}

impl Claim {
    /// Makes sure that no other daemon serves the socket at `path` or keeps its state in `root`.
    pub(crate) fn take(path: &Utf8Path, root: &Utf8Path) -> anyhow::Result<Self> {
        let passed = match nexcage_systemd::activated_listener().context("socket activation")? {
            Some(passed) => {
                passed.set_nonblocking(true).context("socket activation")?;
                Some(UnixListener::from_std(passed).context("socket activation")?)
            }
            None => {
                clear(path)?;
                None
            }
        };
        let lock = lock(root)?;
        Ok(Self {
            path: path.to_owned(),
            passed,
            own: false,
            _lock: lock,
        })
    }

    /// Listens: on the socket systemd passed in, or on a new one. A stale socket is replaced.
    pub(crate) fn listen(&mut self) -> anyhow::Result<UnixListener> {
        if let Some(passed) = self.passed.take() {
            return Ok(passed);
        }
        let path = &self.path;
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
        }
        clear(path)?;
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot listen on {path}"))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))
            .with_context(|| format!("cannot set the mode of {path}"))?;
        self.own = true;
        Ok(listener)
    }
}

impl Drop for Claim {
    /// A socket of our own leaves no file behind; one from systemd is systemd's.
    fn drop(&mut self) {
        if self.own {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn lock(root: &Utf8Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(root).with_context(|| format!("cannot make {root}"))?;
    let path = root.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {path}"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!("another daemon keeps its state in {root}; set storage.root")
        }
        Err(e) => Err(e).with_context(|| format!("cannot lock {path}")),
    }
}

/// Removes a socket that nobody listens on.
fn clear(path: &Utf8Path) -> anyhow::Result<()> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("cannot look at {path}"))?,
    };
    if !meta.file_type().is_socket() {
        bail!("{path} exists and is not a socket; remove it or set kubernetes.cri_socket");
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => bail!("another daemon is serving {path}"),
        Err(_) => {
            std::fs::remove_file(path).with_context(|| format!("cannot remove the stale {path}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        root: Utf8PathBuf,
        socket: Utf8PathBuf,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::try_from(dir.path().to_owned()).unwrap();
        let socket = root.join("x.sock");
        Place {
            _dir: dir,
            root,
            socket,
        }
    }

    #[tokio::test]
    async fn a_live_socket_is_refused_and_a_stale_one_replaced() {
        let place = place();
        let other = place.root.join("other");
        let mut first = Claim::take(&place.socket, &place.root).unwrap();
        let listener = first.listen().unwrap();
        let mode = std::fs::metadata(&place.socket)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = Claim::take(&place.socket, &other).unwrap_err();
        assert!(
            error.to_string().contains("another daemon is serving"),
            "{error}"
        );
        drop((first, listener));
        Claim::take(&place.socket, &place.root)
            .unwrap()
            .listen()
            .unwrap();
    }

    #[tokio::test]
    async fn two_daemons_never_share_their_state() {
        let place = place();
        let _first = Claim::take(&place.socket, &place.root).unwrap();
        let error = Claim::take(&place.root.join("y.sock"), &place.root).unwrap_err();
        assert!(error.to_string().contains("keeps its state in"), "{error}");
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_not_touched() {
        let place = place();
        std::fs::write(&place.socket, "precious").unwrap();
        assert!(Claim::take(&place.socket, &place.root).is_err());
        assert_eq!(std::fs::read_to_string(&place.socket).unwrap(), "precious");
    }
}
