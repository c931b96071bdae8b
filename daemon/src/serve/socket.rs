//! The Unix socket that kubelet talks to.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use anyhow::{Context, bail};
use camino::Utf8Path;
use tokio::net::UnixListener;

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// Listens at `path`: on the socket systemd passed in, or on a new one. A stale socket is replaced, a live one
/// means that another daemon runs.
pub(crate) fn listen(path: &Utf8Path) -> anyhow::Result<UnixListener> {
    if let Some(passed) = nexcage_systemd::activated_listener().context("socket activation")? {
        passed.set_nonblocking(true).context("socket activation")?;
        return UnixListener::from_std(passed).context("socket activation");
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
    }
    clear(path)?;
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {path}"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))
        .with_context(|| format!("cannot set the mode of {path}"))?;
    Ok(listener)
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

/// Removes the socket's file at the end, if it is there.
pub(crate) fn unlink(path: &Utf8Path) {
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, camino::Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = camino::Utf8PathBuf::try_from(dir.path().join("x.sock")).unwrap();
        (dir, path)
    }

    #[tokio::test]
    async fn a_live_socket_is_refused_and_a_stale_one_replaced() {
        let (_dir, path) = place();
        let first = listen(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = listen(&path).unwrap_err();
        assert!(error.to_string().contains("another daemon"), "{error}");
        drop(first);
        listen(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_not_touched() {
        let (_dir, path) = place();
        std::fs::write(&path, "precious").unwrap();
        assert!(listen(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
